package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"syscall"
	"time"
)

// ended reports whether err says that the process or the group is gone.
func ended(err error) bool {
	return errors.Is(err, syscall.ESRCH) || errors.Is(err, syscall.ENODEV) || errors.Is(err, fs.ErrNotExist)
}

// processes lists the processes directly in a group.
func processes(t tree, name string) ([]int, error) {
	text, err := t.read(path.Join(name, "cgroup.procs"))
	if err != nil {
		return nil, err
	}
	return parsePIDs(text)
}

// sweep ends and removes every group beneath ours, but for the leaf this process
// is in.
func (c *Cgroups) sweep(ctx context.Context, hierarchies []*hierarchy) error {
	ctx, cancel := context.WithTimeout(ctx, sweepTime)
	defer cancel()
	var errs []error
	left := make([][]string, len(hierarchies))
	for i, y := range hierarchies {
		groups, err := groupsIn(y.ours, ".", 0)
		errs = append(errs, err)
		for _, g := range groups {
			pids, err := processes(y.ours, g)
			if err == nil && slices.Contains(pids, c.host.pid()) {
				continue
			}
			left[i] = append(left[i], g)
			errs = append(errs, kill(c.host, y.ours, g))
		}
	}
	// All are killed before one is waited for: they die side by side.
	for i, y := range hierarchies {
		for _, g := range left[i] {
			errs = append(errs, remove(ctx, y.ours, g))
		}
	}
	return errors.Join(errs...)
}

// groupsIn lists the groups in name, deepest first.
func groupsIn(t tree, name string, depth int) ([]string, error) {
	const deepest = 32 // what is below stays, and the removal of what is above says so
	if depth == deepest {
		return nil, nil
	}
	names, err := t.groups(name)
	if err != nil {
		if ended(err) {
			return nil, nil
		}
		return nil, err
	}
	var all []string
	for _, n := range names {
		n = path.Join(name, n)
		below, err := groupsIn(t, n, depth+1)
		if err != nil {
			return nil, err
		}
		all = append(append(all, below...), n)
	}
	return all, nil
}

// kill ends every process of a group and does not wait. On v2 the kernel does it,
// forks included (cgroup.kill, Linux 5.14). Else the group may fork no more, and
// every process listed gets a SIGKILL, until a list shows none that has not.
func kill(h host, t tree, name string) error {
	err := t.write(path.Join(name, "cgroup.kill"), "1")
	if err == nil || errors.Is(err, syscall.ENODEV) {
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("kill %s: %w", path.Join(t.path(), name), err)
	}
	// It fails where pids are not bounded in this hierarchy.
	_ = t.write(path.Join(name, "pids.max"), "0")
	const rounds = 64
	signalled := make(map[int]bool)
	for range rounds {
		more, err := killListed(h, t, name, signalled)
		if ended(err) || (err == nil && !more) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("kill %s: %w", path.Join(t.path(), name), err)
		}
	}
	return fmt.Errorf("kill %s: it forked faster than it was killed", path.Join(t.path(), name))
}

// killListed kills the processes of a group that are not in signalled yet, some
// hundred at once, and reports whether there were any.
//
// Between the list and the signal a process may end and its pid go to one that is
// none of ours. So the process is pinned, and the list read again: a pid that still
// stands there was the group's when it was pinned, or what was pinned has ended and
// gets no signal.
func killListed(h host, t tree, name string, signalled map[int]bool) (more bool, err error) {
	const atOnce = 256 // descriptors
	pids, err := processes(t, name)
	if err != nil {
		return false, err
	}
	pins := make(map[int]pinned)
	defer func() {
		for _, p := range pins {
			_ = p.Close()
		}
	}()
	for _, pid := range pids {
		if pid == 0 || signalled[pid] || len(pins) == atOnce {
			continue
		}
		more = true
		p, err := h.pin(pid)
		if err != nil && !ended(err) {
			return false, err
		}
		if err == nil {
			pins[pid] = p
		}
	}
	if pids, err = processes(t, name); err != nil {
		return false, err
	}
	for _, pid := range pids {
		p, ok := pins[pid]
		if !ok {
			continue
		}
		if err := p.kill(); err != nil && !ended(err) {
			return false, err
		}
		signalled[pid] = true
	}
	return more, nil
}

// remove removes one group and waits until it is empty: the kernel says EBUSY as
// long as a process lives in it, v1 has no event to wait for.
func remove(ctx context.Context, t tree, name string) error {
	const longest = 64 * time.Millisecond
	for wait := time.Millisecond; ; wait = min(2*wait, longest) {
		err := t.rmdir(name)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if !errors.Is(err, syscall.EBUSY) {
			return fmt.Errorf("remove cgroup %s: %w", path.Join(t.path(), name), err)
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			pids, _ := processes(t, name)
			return fmt.Errorf("remove cgroup %s: it stays, with the processes %v: %w", path.Join(t.path(), name), pids, context.Cause(ctx))
		}
	}
}
