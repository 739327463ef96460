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

// OOMKills implements [engine.Process].
func (p *process) OOMKills() int64 {
	if p.group == nil {
		return 0
	}
	kills, err := p.group.OOMKills()
	if err != nil {
		return p.oomKills.Load() // the group is gone, and the process with it
	}
	p.oomKills.Store(kills)
	return kills
}

// Usage implements [engine.Process]. What no cgroup tells is the worker process's
// alone: nobody counts its tools then.
func (p *process) Usage() engine.Usage {
	var u engine.Usage
	if p.group != nil {
		if sum, err := p.group.Usage(); err == nil {
			u = engine.Usage(sum)
		}
	}
	if u.MemoryBytes == 0 {
		u.MemoryBytes = p.residentBytes()
	}
	if u.CPU == 0 {
		u.CPU = p.processorTime()
	}
	return u
}

func (p *process) residentBytes() int64 {
	if statm := fields("/proc/"+strconv.Itoa(p.child.PID)+"/statm", ""); len(statm) > 1 {
		return number(statm[1]) * int64(os.Getpagesize())
	}
	return 0
}

func (p *process) processorTime() time.Duration {
	// After the command's name, which may hold anything: field 14 and 15 of
	// proc_pid_stat(5) are the 12th and 13th behind its closing parenthesis.
	if stat := fields("/proc/"+strconv.Itoa(p.child.PID)+"/stat", ")"); len(stat) > 12 {
		ticks := number(stat[11]) + number(stat[12])
		return time.Duration(ticks) * time.Second / clockTicks
	}
	return 0
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
