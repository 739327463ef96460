package selftest

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"carrel/internal/jail/attack"
)

// quickIDs are the rows of a quick self-test: at least one for each layer and for
// each hole that such a design has, none that takes time, that needs a process of its
// own, or that is in another's way.
var quickIDs = []string{
	"inherited-descriptors",                                               // first: rows that succeed, where a layer is missing, leave some
	"home-read", "home-stat", "host-root", "host-var", "unix-path-worker", // mounts, sealed home
	"environ-worker", "mem-worker", "cmdline-worker", "visible-worker", // hidepid, dumpable
	"tcp-host", "abstract-host", "udp-outside", // network namespace
	"tcp-bind", "mptcp-bind", "vsock", "netlink-generic", // holes 1 and 2's kin
	"kill-worker", "prlimit-worker", "setpriority-worker", // holes 4 and 5
	"ptrace-worker", "vm-readv-worker", "pidfd-getfd-worker",
	"keyctl", "io_uring", "userfaultfd", "perf", "statmount", // seccomp
	"autogroup", "write-program", "core-limit",
}

// Quick tries a small part of the table, in one sandbox and one process, and gives
// the verdicts. It is meant for a daemon's start.
func Quick(ctx context.Context, o Options) ([]Verdict, error) {
	rows, err := attack.Find(quickIDs)
	if err != nil {
		return nil, err
	}
	o.Ways, o.Rows = []Way{Cold}, rows
	s := newSession(o)
	// Both at once: a daemon waits for this.
	var outside map[string]*attack.Result
	var failed error
	var both sync.WaitGroup
	both.Go(func() { outside, failed = s.controls(ctx, attack.ModeRow) })
	inside, err := s.attackAtOnce(ctx)
	both.Wait()
	if failed != nil {
		return nil, fmt.Errorf("controls outside of a sandbox: %w", failed)
	}
	if err != nil {
		return nil, fmt.Errorf("attack a sandbox: %w", err)
	}
	verdicts := make([]Verdict, 0, len(o.Rows))
	for _, r := range o.Rows {
		verdicts = append(verdicts, judge(r, outside[r.ID], inside[r.ID], o.lost()))
	}
	return verdicts, nil
}

// attackAtOnce runs all rows as one command in the tool tier.
func (s *session) attackAtOnce(ctx context.Context) (_ map[string]*attack.Result, err error) {
	target := attack.InSandbox()
	host, err := s.listen(ctx, &target)
	if err != nil {
		return nil, err
	}
	defer host.close()
	c, err := s.converse(ctx, Cold, target)
	if err != nil {
		return nil, err
	}
	defer func() {
		if ending := c.end(); err == nil {
			err = ending
		}
	}()
	argv := []string{"/workspace/attacker", attack.ModeRow}
	for _, r := range s.Rows {
		argv = append(argv, r.ID)
	}
	out, err := c.exec(ctx, target, argv...)
	if err != nil {
		return nil, err
	}
	// A row that ended the process in the middle leaves the others without a result.
	results, _ := decodeAll(strings.NewReader(out.Stdout))
	return results, nil
}
