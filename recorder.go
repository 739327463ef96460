package carrel

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"carrel/internal/audit"
	"carrel/internal/broker"
	"carrel/internal/metrics"
	"carrel/internal/pool"
	"carrel/internal/store"
	"carrel/protocol"
)

// recorder puts one run's events into the store. It is used by one goroutine at
// a time: the pool's, which hands over the worker's events, and afterwards the
// run's own.
type recorder struct {
	store *store.Store
	runID string
	seq   int64 // of the last event
	ended bool  // an ending was stored or is on its way
	// lostToMemory reports whether the kernel has killed a process of the sandbox
	// for want of memory while the run went; nil = it has not.
	lostToMemory func() bool
	// questions keeps what the run asks; open are those it has no answer to.
	questions *approvals
	open      []string
	meter     *broker.Meter // nil = the run could use no model
	// audit is told of the run's questions and of its end, in lines about it.
	audit   *audit.Log
	about   audit.Event
	began   time.Time        // zero = under another daemon
	metrics *metrics.Metrics // nil = nobody counts
	tools   *toolSpans
	ending  string // as in metrics, once it has ended
}

// take stores an event of the worker. ctx is the run's: its cause names what
// ended it.
func (r *recorder) take(ctx context.Context, ev protocol.EventParams) error {
	if err := r.correct(ctx, &ev); err != nil {
		return err
	}
	r.open = follow(r.open, ev.Type, ev.Data)
	r.tools.see(ev)
	switch {
	case ev.Type.Ends() && r.lostToMemory != nil && isLoss(ev) && r.lostToMemory():
		loss, err := json.Marshal(protocol.RunError{
			Code:    protocol.CodeOutOfMemory,
			Message: "the sandbox ran out of memory (SANDBOX_MEMORY_LIMIT), and the kernel killed a command of the run",
			Cause:   &protocol.ExitCause{OOMKill: true},
		})
		if err != nil {
			return fmt.Errorf("encode ending: %w", err)
		}
		ev.Type, ev.Data = protocol.EventRunError, loss
	case ev.Type == protocol.EventRunError:
		ev.Data = reason(ctx, ev.Data)
	}
	if ev.Type.Ends() {
		var err error
		if ev, err = billed(ctx, ev, r.meter); err != nil {
			return err
		}
	}
	err := r.append(context.WithoutCancel(ctx), protocol.Event{
		RunID: r.runID, Seq: ev.Seq, Time: time.Now(), Type: ev.Type, Data: ev.Data,
	})
	if err != nil {
		return err
	}
	if r.ended = ev.Type.Ends(); r.ended {
		r.noteEnd(ctx, ev.Type, ev.Data)
	}
	return nil
}

// correct takes in the events that tell of what the host itself knows, and puts that
// into them: what a person answered, what was spent. A worker's word would be shown
// as theirs.
func (r *recorder) correct(ctx context.Context, ev *protocol.EventParams) (err error) {
	var is any
	switch ev.Type {
	case protocol.EventApprovalRequested:
		var q protocol.ApprovalRequested
		if err := json.Unmarshal(ev.Data, &q); err != nil {
			return protocol.Errorf(protocol.CodeWorkerProtocolError, "%s: %w", ev.Type, err)
		}
		if err := r.questions.ask(r.runID, q); err != nil {
			return err
		}
		r.noteApproval(ctx, audit.ApprovalAsked, audit.Event{ApprovalID: q.ApprovalID, Tool: q.Tool, Content: string(q.Input)})
		return nil
	case protocol.EventApprovalResolved:
		var told protocol.ApprovalResolved
		if err := json.Unmarshal(ev.Data, &told); err != nil {
			return protocol.Errorf(protocol.CodeWorkerProtocolError, "%s: %w", ev.Type, err)
		}
		resolved, by, err := r.questions.resolve(r.runID, told)
		if err != nil {
			return err
		}
		r.noteApproval(ctx, audit.ApprovalEnded, audit.Event{ApprovalID: resolved.ApprovalID, Decision: resolved.Decision, By: by})
		is = resolved
	case protocol.EventUsage:
		is = r.meter.Usage()
	default:
		return nil
	}
	if ev.Data, err = json.Marshal(is); err != nil {
		return fmt.Errorf("encode %s: %w", ev.Type, err)
	}
	return nil
}

// isLoss reports whether an ending looks like that of a run whose command, or its
// tool host, was killed: the worker cannot see who did it.
func isLoss(ev protocol.EventParams) bool {
	if ev.Type == protocol.EventRunError {
		var told protocol.RunError
		return json.Unmarshal(ev.Data, &told) == nil && told.Code == protocol.CodeAgentError
	}
	var told struct {
		ExitCode *int `json:"exit_code"`
	}
	return json.Unmarshal(ev.Data, &told) == nil && told.ExitCode != nil && *told.ExitCode == exitKilled
}

// exitKilled is a shell's exit status for a command that SIGKILL ended.
const exitKilled = 128 + 9

// reason puts the host's reason into a RUN_ERROR of a canceled run: the worker
// is told to cancel, not whether a person, the clock or a shutdown wants it.
func reason(ctx context.Context, data json.RawMessage) json.RawMessage {
	cause, ok := errors.AsType[*protocol.Error](context.Cause(ctx))
	if !ok {
		return data
	}
	var told protocol.RunError
	if err := json.Unmarshal(data, &told); err != nil || told.Code != protocol.CodeCanceled {
		return data
	}
	told.Code, told.Message = cause.Code, cause.Message
	changed, err := json.Marshal(told)
	if err != nil {
		return data
	}
	return changed
}

// end stores an ending that the worker could not give, and waits until it is
// stored.
func (r *recorder) end(ctx context.Context, err error) error {
	ending := protocol.RunError{Code: protocol.CodeInternal, Message: "an internal error; the daemon's log tells more"}
	if e, ok := errors.AsType[*protocol.Error](err); ok {
		ending.Code, ending.Message = e.Code, e.Message
	}
	if death, ok := errors.AsType[*pool.DeathError](err); ok {
		ending.Cause = &death.Cause
	}
	if usage := r.meter.Usage(); usage != (protocol.Usage{}) {
		ending.Usage = &usage
	}
	data, err := json.Marshal(ending)
	if err != nil {
		return fmt.Errorf("encode ending: %w", err)
	}
	if err := r.settle(ctx); err != nil {
		return err
	}
	for _, id := range r.open {
		resolved, err := json.Marshal(protocol.ApprovalResolved{
			ApprovalID: id, Decision: protocol.Deny, Reason: "the run ended before an answer came",
		})
		if err != nil {
			return fmt.Errorf("encode ending: %w", err)
		}
		if err := r.append(ctx, r.next(protocol.EventApprovalResolved, resolved)); err != nil {
			return err
		}
	}
	if err := r.append(ctx, r.next(protocol.EventRunError, data)); err != nil {
		return err
	}
	if err := r.store.Flush(ctx, r.runID); err != nil {
		return err
	}
	r.ended = true
	r.noteEnd(ctx, protocol.EventRunError, data)
	return nil
}

// next makes an event of the host's own.
func (r *recorder) next(t protocol.EventType, data json.RawMessage) protocol.Event {
	return protocol.Event{RunID: r.runID, Seq: r.seq + 1, Time: time.Now(), Type: t, Data: data}
}

// settle waits for what was appended, and finds out which event is the last one
// stored: after a failed write there are fewer than were appended.
func (r *recorder) settle(ctx context.Context) error {
	_ = r.store.Flush(ctx, r.runID) // its failure was told by an Append, or shows next
	seq, err := r.store.LastSeq(ctx, r.runID)
	if err != nil {
		return err
	}
	r.seq = seq
	return nil
}

func (r *recorder) append(ctx context.Context, ev protocol.Event) error {
	if err := r.store.Append(ctx, ev); err != nil {
		return err
	}
	r.seq = ev.Seq
	r.metrics.Event(ev.Type)
	return nil
}
