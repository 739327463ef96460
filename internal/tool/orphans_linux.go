package tool

import (
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	orphanRounds = 200
	orphanPause  = 10 * time.Millisecond
)

// killOrphans kills what a dead tool host left. Orphans come to the main thread
// of PID 1, tool hosts are children of the reaper's thread, so the main thread's
// children are orphans, all of them. Killing one may bring its own children
// here, hence the rounds. If they multiply faster than they die, the worker ends
// itself: the kernel then kills the whole PID namespace at once.
func (h *Hosts) killOrphans() {
	for range orphanRounds {
		pids, err := orphans()
		if err != nil {
			break // what cannot be seen cannot be said to be gone
		}
		if len(pids) == 0 {
			return
		}
		h.reaper.Do(func() { // their domains stand below that thread's only
			for _, pid := range pids {
				_ = unix.Kill(pid, unix.SIGKILL)
			}
		})
		pause := time.NewTimer(orphanPause) // time for the kernel to end them and the reaper to collect them
		<-pause.C
	}
	os.Exit(1) //nolint:forbidigo // the one way to kill every process of this namespace
}

func orphans() ([]int, error) {
	content, err := os.ReadFile("/proc/1/task/1/children")
	if err != nil {
		return nil, err
	}
	var pids []int
	for field := range strings.FieldsSeq(string(content)) {
		if pid, err := strconv.Atoi(field); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}
