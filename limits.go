package carrel

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"carrel/internal/cgroup"
	"carrel/internal/jail"
	"carrel/internal/memory"
	"carrel/internal/pool"
)

// openCgroups makes the group that the sandboxes' groups stand in, where the host
// gives one.
func (o *Orchestrator) openCgroups(ctx context.Context) (err error) {
	if cgroup.Detect().State == cgroup.None {
		return nil
	}
	base, err := filepath.Abs(o.cfg.BaseDir)
	if err != nil {
		return fmt.Errorf("SANDBOX_BASE_DIR: %w", err)
	}
	o.cgroups, err = cgroup.Open(ctx, cgroup.Name(base))
	return err
}

// sumLimits bound a sandbox from outside, all its processes together.
func (c *Config) sumLimits() cgroup.Limits {
	return cgroup.Limits{MemoryBytes: int64(c.MemoryLimit), CPUs: c.CPULimit, PIDs: int64(c.PIDsLimit)}
}

// jailLimits are the limits that a sandbox is given from inside.
func (o *Orchestrator) jailLimits() jail.Limits {
	l := jail.DefaultLimits()
	l.PIDs = uint64(o.cfg.PIDsLimit)
	l.FileBytes = uint64(o.cfg.DiskQuota)
	// What lies in /tmp and /dev/shm is memory of the sandbox that no kill of a
	// process frees. Were there room in them for all of it, filling them would end
	// the worker; so the command that does gets "no space left" first.
	l.TmpBytes = min(l.TmpBytes, uint64(o.cfg.MemoryLimit)/4)
	if o.cgroups == nil || !o.cgroups.Support().Has(cgroup.Memory) {
		l.DataBytes = uint64(o.cfg.MemoryLimit) // at least each process
	}
	return l
}

// pressure is what the pool asks before it starts a worker.
func pressure() pool.Pressure {
	reason, room := memory.Gauge{Proc: os.DirFS("/proc"), Headroom: cgroup.Headroom}.Room()
	return pool.Pressure{NoRoom: !room, Reason: reason}
}
