// Package memory tells whether the host has memory for one more sandbox: by what is
// available, by what the daemon's own cgroup leaves, and by how long tasks wait for
// memory already.
package memory

import (
	"fmt"
	"io/fs"
	"strconv"
	"strings"
)

const (
	// The reserve is a twentieth of the machine's memory, within these bounds: what
	// the daemon, the page cache and the workers that live need to go on at all.
	reservePart                  = 20
	leastReserve           int64 = 128 << 20
	mostReserve            int64 = 1 << 30
	mib                    int64 = 1 << 20
	maxStalled                   = 10.0 // percent
	stallFile                    = "pressure/memory"
	stallLine, stallFigure       = "full ", "avg10="
)

// Gauge looks at the host. It is safe for concurrent use.
type Gauge struct {
	Proc fs.FS // /proc
	// Headroom is what the daemon's own cgroup leaves; ok is false where it has no
	// bound. Nil: there is none.
	Headroom func() (bytes int64, ok bool)
}

// Room reports whether one more sandbox may be started; else reason says in half a
// line why not. What cannot be read stands in nobody's way: a sandbox's own limit
// holds all the same.
func (g Gauge) Room() (reason string, ok bool) {
	total, available := g.meminfo()
	reserve := min(max(total/reservePart, leastReserve), mostReserve)
	if total > 0 && available < reserve {
		return fmt.Sprintf("%d MiB of memory are available, and %d MiB are kept free", available/mib, reserve/mib), false
	}
	if g.Headroom != nil {
		if left, bounded := g.Headroom(); bounded && left < leastReserve {
			return fmt.Sprintf("the daemon's own cgroup leaves %d MiB of memory, and %d MiB are kept free", left/mib, leastReserve/mib), false
		}
	}
	if stalled := g.stalled(); stalled > maxStalled {
		return fmt.Sprintf("all tasks together waited for memory during %.0f %% of the last ten seconds", stalled), false
	}
	return "", true
}

// meminfo reads MemTotal and MemAvailable (proc_meminfo(5)), in bytes; 0, 0 where
// they cannot be had.
func (g Gauge) meminfo() (total, available int64) {
	text, err := fs.ReadFile(g.Proc, "meminfo")
	if err != nil {
		return 0, 0
	}
	found := 0
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		into := map[string]*int64{"MemTotal": &total, "MemAvailable": &available}[name]
		if into == nil {
			continue
		}
		kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		if err != nil {
			return 0, 0
		}
		*into = kib << 10
		found++
	}
	if found < 2 {
		return 0, 0
	}
	return total, available
}

// stalled reads how many percent of the last ten seconds all tasks that had work
// to do waited for memory (PSI, Documentation/accounting/psi.rst); 0 where the
// kernel does not tell.
func (g Gauge) stalled() float64 {
	text, err := fs.ReadFile(g.Proc, stallFile)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, stallLine) {
			continue
		}
		for word := range strings.FieldsSeq(line) {
			if figure, ok := strings.CutPrefix(word, stallFigure); ok {
				percent, err := strconv.ParseFloat(figure, 64)
				if err != nil {
					return 0
				}
				return percent
			}
		}
	}
	return 0
}
