package carrel

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"time"

	"carrel/internal/audit"
	"carrel/internal/httpapi"
	"carrel/internal/metrics"
	"carrel/protocol"
)

// openAudit opens the audit log and writes its first line: which isolation is in force.
func (o *Orchestrator) openAudit(ctx context.Context) (err error) {
	if !o.cfg.hasAudit() {
		return nil
	}
	o.audit, err = audit.Open(audit.Options{
		File:     o.cfg.AuditFile,
		MaxBytes: int64(o.cfg.AuditMaxBytes),
		Keep:     o.cfg.AuditKeep,
		Content:  o.cfg.AuditContent,
		Log:      o.log,
	})
	if err != nil {
		return err
	}
	e := audit.Event{
		Action: audit.DaemonStarted, Version: o.version, PID: os.Getpid(),
		Isolation: o.isolation.State, Layers: make(map[string]string),
	}
	for _, l := range o.isolation.Layers {
		e.Layers[l.Name] = string(l.State)
	}
	if err := o.audit.Write(ctx, e); err != nil {
		return o.unaudited(err)
	}
	return nil
}

// closeAudit is the end of the log: nothing is done any more.
func (o *Orchestrator) closeAudit(ctx context.Context) error {
	_ = o.audit.Write(ctx, audit.Event{Action: audit.DaemonStopped, Version: o.version, PID: os.Getpid()})
	return o.audit.Close(ctx)
}

// ReopenAudit lets go of an audit log that was put aside by somebody else, as SIGHUP
// asks for. Without being told the daemon does so at the next line.
func (o *Orchestrator) ReopenAudit(ctx context.Context) { o.audit.Reopen(ctx) }

// auditable refuses what must not be done unless it can be written down.
func (o *Orchestrator) auditable(ctx context.Context) error {
	if !o.cfg.AuditRequired {
		return nil
	}
	return o.unaudited(o.audit.Check(ctx))
}

// unaudited makes a refusal of a line that could not be written, where lines are
// required; else such a line is only counted.
func (o *Orchestrator) unaudited(err error) error {
	if err == nil || !o.cfg.AuditRequired {
		return nil
	}
	return &protocol.Error{
		Code:    protocol.CodeInternal,
		Message: "the audit log cannot be written, and nothing may be run without it (CARREL_AUDIT_REQUIRED)",
		Err:     err,
	}
}

// note writes down what a caller wanted done, and what became of it. What made no
// sense, or was about nothing that there is, leaves no line: nothing was decided.
func (o *Orchestrator) note(ctx context.Context, e audit.Event, err error) {
	e.Decision = cmp.Or(e.Decision, audit.Allow)
	if err != nil {
		e.Code, e.Decision = protocol.CodeOf(err), audit.Failed
		if told, ok := errors.AsType[*protocol.Error](err); ok {
			e.Reason = told.Message
		}
		switch status := e.Code.HTTPStatus(); {
		case e.Code == protocol.CodeInvalidRequest, e.Code == protocol.CodeNotFound:
			return
		case status < protocol.CodeInternal.HTTPStatus():
			e.Decision = audit.Deny
		}
	}
	e.Caller = cmp.Or(e.Caller, callerOf(ctx))
	_ = o.audit.Write(ctx, e) // the log tells of its own failures
}

// callerOf tells who wants something done: a request's sender, or this program itself.
func callerOf(ctx context.Context) string { return cmp.Or(httpapi.CallerOf(ctx).Name, "process") }

// noteExec writes down a command before it begins.
func (o *Orchestrator) noteExec(ctx context.Context, g *goingRun, c protocol.Command) error {
	e := g.line(audit.ExecStarted)
	err := o.auditable(ctx)
	if err == nil {
		e.Decision, e.Content = audit.Allow, strings.Join(c.Argv(), " ")
		return o.unaudited(o.audit.Write(ctx, e))
	}
	o.note(ctx, e, err)
	return err
}

func (o *Orchestrator) noteExecEnd(ctx context.Context, g *goingRun, began time.Time, r protocol.ExecResult, err error) {
	e := g.line(audit.ExecEnded)
	e.Seconds = time.Since(began).Seconds()
	if err != nil {
		e.Code = protocol.CodeOf(err)
	} else {
		e.ExitCode, e.Signal = &r.ExitCode, r.Signal
	}
	_ = o.audit.Write(ctx, e)
	o.audit.Settle(ctx, e.UserID)
}

// line begins a line about what is going.
func (g *goingRun) line(a audit.Action) audit.Event {
	e := g.about
	e.Action = a
	return e
}

// noteApproval writes down what a run asks or was answered.
func (r *recorder) noteApproval(ctx context.Context, a audit.Action, e audit.Event) {
	e.Action, e.Caller, e.UserID, e.RunID, e.SessionID = a, r.about.Caller, r.about.UserID, r.about.RunID, r.about.SessionID
	_ = r.audit.Write(ctx, e)
}

// noteEnd writes down how a run has ended, by what was stored of it.
func (r *recorder) noteEnd(ctx context.Context, t protocol.EventType, data json.RawMessage) {
	var told struct {
		Code     protocol.Code `json:"code"`
		ExitCode *int          `json:"exit_code"`
	}
	_ = json.Unmarshal(data, &told) // what a worker got wrong is not there
	e := r.about
	e.Action, e.Code, e.ExitCode = audit.RunEnded, told.Code, told.ExitCode
	e.Status = string(protocol.StatusOf(t, told.Code))
	switch {
	case t == protocol.EventRunFinished:
		r.ending = metrics.Finished
	case told.Code.Known():
		r.ending = string(told.Code)
	default: // a worker's own word
		r.ending = metrics.Other
	}
	r.tools.close()
	usage := r.meter.Usage() // the broker's own figures
	e.Tokens, e.CostUSD = usage.Tokens(), usage.CostUSD
	var took time.Duration // of a run of another daemon's it is not known
	if !r.began.IsZero() {
		took = time.Since(r.began)
	}
	e.Seconds = took.Seconds()
	r.metrics.RunEnded(r.about.Agent, r.ending, took)
	_ = r.audit.Write(ctx, e)
}
