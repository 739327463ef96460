package local

import (
	"os"
	"strconv"
	"strings"
	"time"

	"carrel/internal/engine"
)

// clockTicks is USER_HZ, the unit of /proc's times: 100 on every Linux that Go
// runs on (sysconf(3), _SC_CLK_TCK).
const clockTicks = 100

// Usage implements [engine.Process]. Without a cgroup it is the worker process
// alone: its tools have uids and namespaces of their own and are not counted.
func (p *process) Usage() engine.Usage {
	var u engine.Usage
	if statm := fields("/proc/"+strconv.Itoa(p.child.PID)+"/statm", ""); len(statm) > 1 {
		u.MemoryBytes = number(statm[1]) * int64(os.Getpagesize())
	}
	// After the command's name, which may hold anything: field 14 and 15 of
	// proc_pid_stat(5) are the 12th and 13th behind its closing parenthesis.
	if stat := fields("/proc/"+strconv.Itoa(p.child.PID)+"/stat", ")"); len(stat) > 12 {
		ticks := number(stat[11]) + number(stat[12])
		u.CPU = time.Duration(ticks) * time.Second / clockTicks
	}
	return u
}

func fields(path, after string) []string {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil // it has just ended
	}
	text := string(b)
	if i := strings.LastIndex(text, after); after != "" && i >= 0 {
		text = text[i+1:]
	}
	return strings.Fields(text)
}

func number(s string) int64 {
	n, _ := strconv.ParseInt(s, 10, 64)
	return n
}
