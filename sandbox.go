package carrel

import (
	"context"
	"time"

	"carrel/internal/audit"
	"carrel/internal/logline"
	"carrel/protocol"
)

// Exec runs one command in a user's sandbox, to its end; ctx's end stops it.
// Where sink is not nil it is given the output as it comes, from one goroutine,
// and its error stops the command.
func (o *Orchestrator) Exec(ctx context.Context, userID string, req protocol.ExecRequest, sink func(protocol.EventType, protocol.ExecOutput) error) (result protocol.ExecResult, err error) {
	if err := protocol.CheckUserID(userID); err != nil {
		return protocol.ExecResult{}, err
	}
	if err := o.enter(); err != nil {
		return protocol.ExecResult{}, err
	}
	defer o.runsWG.Done()
	g := &goingRun{about: audit.Event{Caller: callerOf(ctx), UserID: userID, RunID: newID("exec_")}}
	ctx = logline.Carry(ctx, ctx)
	logline.Fill(ctx, logline.Fields{Run: g.about.RunID, UserID: userID})
	ctx = o.traceRun(ctx, "command", g)
	g.ctx = ctx
	defer func() { g.endTrace(endingOf(err), protocol.Usage{}) }()
	if err := o.noteExec(ctx, g, req.Command); err != nil {
		return protocol.ExecResult{}, err
	}
	began := time.Now()
	defer func() {
		o.noteExecEnd(context.WithoutCancel(ctx), g, began, result, err)
		o.metrics.ExecEnded(endingOf(err), time.Since(began))
	}()
	return o.exec(ctx, g, req, sink)
}

// exec does it; g has the command's name and user.
func (o *Orchestrator) exec(ctx context.Context, g *goingRun, req protocol.ExecRequest, sink func(protocol.EventType, protocol.ExecOutput) error) (protocol.ExecResult, error) {
	userID, key := g.about.UserID, g.about.RunID
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	g.cancel = cancel // for a shutdown; no caller knows the command's name
	o.mu.Lock()
	o.going[key] = g
	o.mu.Unlock()
	defer func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		delete(o.going, key)
	}()
	lease, err := o.acquire(ctx, userID, nil)
	if err != nil {
		return protocol.ExecResult{}, err
	}
	defer lease.Release()
	ctx, disk, err := o.disk.begin(ctx, userID)
	if err != nil {
		return protocol.ExecResult{}, err
	}
	defer disk.end()
	timeout := o.timeout(req.TimeoutSeconds)
	ctx, stop := context.WithTimeoutCause(ctx, timeout,
		protocol.Errorf(protocol.CodeRunTimeout, "the command took longer than %s", timeout))
	defer stop()
	params := protocol.ExecParams{ExecRequest: req, ExecID: key}
	var output func(protocol.ExecOutputParams) error
	if sink != nil {
		output = func(p protocol.ExecOutputParams) error { return sink(p.Type, protocol.ExecOutput{Text: p.Text}) }
	}
	result, err := lease.Exec(ctx, params, output)
	if err == nil {
		err = disk.settle(ctx)
	}
	result.OOMKill = result.ExitCode == exitKilled && lease.LostToMemory()
	return result, err
}

// Sandboxes shows the live pool.
func (o *Orchestrator) Sandboxes() protocol.Sandboxes { return o.pool.Sandboxes() }

// Sandbox shows one user's sandbox: its worker, if one lives, and what it may use.
func (o *Orchestrator) Sandbox(ctx context.Context, userID string) (protocol.SandboxInfo, error) {
	if err := protocol.CheckUserID(userID); err != nil {
		return protocol.SandboxInfo{}, err
	}
	disk, err := o.dirs.DiskUsage(ctx, userID)
	if err != nil {
		return protocol.SandboxInfo{}, err
	}
	info := protocol.SandboxInfo{
		UserID:    userID,
		DiskBytes: disk,
		Isolation: o.isolation,
		Limits: protocol.SandboxLimits{
			MemoryBytes: int64(o.cfg.MemoryLimit),
			CPUs:        o.cfg.CPULimit,
			PIDs:        o.cfg.PIDsLimit,
			DiskBytes:   int64(o.cfg.DiskQuota),
		},
	}
	if live, ok := o.pool.Sandbox(userID); ok {
		info.Sandbox = &live
	}
	return info, nil
}

// RetireSandbox ends a user's worker, its going runs with it, and with purge
// removes the user's directory.
func (o *Orchestrator) RetireSandbox(ctx context.Context, userID string, purge bool) error {
	if err := protocol.CheckUserID(userID); err != nil {
		return err
	}
	e := audit.Event{Action: audit.SandboxRetired, UserID: userID}
	if purge {
		e.Action = audit.SandboxPurged
	}
	err := o.retire(ctx, userID, purge)
	o.note(ctx, e, err)
	return err
}

func (o *Orchestrator) retire(ctx context.Context, userID string, purge bool) error {
	if err := o.pool.Retire(ctx, userID); err != nil {
		return err
	}
	if !purge {
		return nil
	}
	if err := o.dirs.Remove(ctx, userID); err != nil {
		return err
	}
	o.disk.forget(userID)
	return nil
}

// System describes the daemon.
func (o *Orchestrator) System() protocol.System {
	return protocol.System{
		Version:       o.version,
		StartedAt:     o.startedAt.UTC(),
		Isolation:     o.isolation,
		Pool:          o.pool.Figures(),
		Usage:         o.totals(),
		Configuration: o.cfg.Redacted(),
	}
}
