package carrel

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"carrel/internal/audit"
	"carrel/internal/store"
	"carrel/protocol"
)

const (
	// maxOpenApprovals bounds what one run may have asked and not yet seen resolved.
	maxOpenApprovals = 64
	// maxApprovals bounds what one run may ask in all: a question is kept until its
	// run ends, since its answer may be sent twice.
	maxApprovals = 10_000
	// maxApprovalIDBytes bounds an id, which a worker makes up.
	maxApprovalIDBytes = 128
)

// approvals are the questions of going runs whether a tool may be used.
//
//	worker                        host                         a person
//	  │ event APPROVAL_REQUESTED ──▶│ ask; then stored, then shown ─▶│
//	  │ approve ───────────────────▶│ await                          │
//	  │                             │◀─────────────────────── answer │
//	  │◀─ decision ─────────────────│   (or the time is up: deny)
//	  │ event APPROVAL_RESOLVED ───▶│ resolve; what is stored is what was answered
//
// The event comes first, so whoever has seen the question can answer it. A run's
// questions end with it, and no other run's have to do with them.
type approvals struct {
	timeout time.Duration

	mu   sync.Mutex
	runs map[string]*runApprovals // that have asked, by run id
}

// runApprovals are one run's; approvals.mu guards them.
type runApprovals struct {
	asked map[string]*approval // by approval id
	open  int                  // of them, not resolved
}

type approval struct {
	expires  time.Time
	answered chan struct{} // closed once result is set
	result   protocol.ApproveResult
	by       string // who has set it: byPerson, byTimeout or byWorker
	resolved bool   // the worker has told what became of it
}

// Who has decided on an approval.
const (
	byPerson  = "person"
	byTimeout = "timeout"
	byWorker  = "worker" // it did not wait: denied
)

func newApprovals(timeout time.Duration) *approvals {
	return &approvals{timeout: timeout, runs: make(map[string]*runApprovals)}
}

// ask opens a question of a run.
func (a *approvals) ask(runID string, q protocol.ApprovalRequested) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	run := a.runs[runID]
	if run == nil {
		run = &runApprovals{asked: make(map[string]*approval)}
		a.runs[runID] = run
	}
	switch {
	case q.ApprovalID == "" || len(q.ApprovalID) > maxApprovalIDBytes || run.asked[q.ApprovalID] != nil:
		return protocol.Errorf(protocol.CodeWorkerProtocolError, "approval %.40q: its id is not a new one of at most %d bytes", q.ApprovalID, maxApprovalIDBytes)
	case run.open >= maxOpenApprovals:
		return protocol.Errorf(protocol.CodeWorkerProtocolError, "a run may have %d approvals open", maxOpenApprovals)
	case len(run.asked) >= maxApprovals:
		return protocol.Errorf(protocol.CodeWorkerProtocolError, "a run may ask for %d approvals", maxApprovals)
	}
	run.asked[q.ApprovalID] = &approval{expires: time.Now().Add(a.timeout), answered: make(chan struct{})}
	run.open++
	return nil
}

// resolve takes in what a worker tells of a question's outcome, once, and returns
// what is to be stored: the answer that was given here, whatever the worker says. One
// that it did not wait for is denied, and cannot be allowed any more. by is who has
// decided.
func (a *approvals) resolve(runID string, told protocol.ApprovalResolved) (is protocol.ApprovalResolved, by string, err error) {
	q, err := a.find(runID, told.ApprovalID)
	if err != nil {
		return told, "", protocol.Errorf(protocol.CodeWorkerProtocolError, "approval %.40q is resolved and was never asked for", told.ApprovalID)
	}
	if told.Decision != protocol.Allow {
		told.Decision = protocol.Deny
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if q.resolved {
		return told, "", protocol.Errorf(protocol.CodeWorkerProtocolError, "approval %.40q is resolved twice", told.ApprovalID)
	}
	q.resolved = true
	a.runs[runID].open--
	select {
	case <-q.answered:
	default:
		q.result, q.by = protocol.ApproveResult{Decision: protocol.Deny, Reason: told.Reason}, byWorker
		close(q.answered)
	}
	// Of an allowed call a canceled run does not make any use: that it may say.
	if told.Decision == protocol.Allow || q.result.Decision == protocol.Deny {
		told.Decision, told.Reason = q.result.Decision, q.result.Reason
		return told, q.by, nil
	}
	return told, byWorker, nil
}

// find returns a run's approval, or CodeNotFound.
func (a *approvals) find(runID, approvalID string) (*approval, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if run := a.runs[runID]; run != nil && run.asked[approvalID] != nil {
		return run.asked[approvalID], nil
	}
	return nil, protocol.Errorf(protocol.CodeNotFound, "this run has no approval %.80q that waits for an answer", approvalID)
}

// await returns the answer to a question, or a denial when its time is up: silence
// never allows.
func (a *approvals) await(ctx context.Context, p protocol.ApproveParams) (protocol.ApproveResult, error) {
	q, err := a.find(p.RunID, p.ApprovalID)
	if err != nil {
		return protocol.ApproveResult{}, err
	}
	timer := time.NewTimer(time.Until(q.expires))
	defer timer.Stop()
	select {
	case <-q.answered:
	case <-timer.C:
		// Whoever answers at this very moment may be first.
		_ = a.settle(q, byTimeout, protocol.ApproveResult{
			Decision: protocol.Deny, Reason: fmt.Sprintf("nobody answered within %s", a.timeout),
		})
	case <-ctx.Done():
		return protocol.ApproveResult{}, context.Cause(ctx)
	}
	return q.result, nil
}

// answer gives a person's decision. The same one again is no error, another one is
// CodeConflict.
func (a *approvals) answer(runID, approvalID string, d protocol.ApprovalDecision) error {
	q, err := a.find(runID, approvalID)
	if err != nil {
		return err
	}
	return a.settle(q, byPerson, protocol.ApproveResult{Decision: d.Decision, Reason: d.Reason})
}

func (a *approvals) settle(q *approval, by string, r protocol.ApproveResult) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	select {
	case <-q.answered:
		if q.result.Decision != r.Decision {
			return protocol.Errorf(protocol.CodeConflict, "it is decided already: %s", q.result.Decision)
		}
		return nil
	default:
	}
	q.result, q.by = r, by
	close(q.answered)
	return nil
}

// forget drops a run's questions: it has ended.
func (a *approvals) forget(runID string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.runs, runID)
}

// Approve answers a run that asks whether a tool may be used. Errors:
// CodeInvalidRequest; CodeNotFound where the run does not go on or has no such
// question; CodeConflict where it is decided otherwise already.
func (o *Orchestrator) Approve(ctx context.Context, runID, approvalID string, d protocol.ApprovalDecision) error {
	if d.Decision != protocol.Allow && d.Decision != protocol.Deny {
		return protocol.Errorf(protocol.CodeInvalidRequest, "decision: must be %q or %q", protocol.Allow, protocol.Deny)
	}
	run, err := o.store.Run(ctx, runID)
	if err != nil {
		return err
	}
	err = o.approvals.answer(runID, approvalID, d)
	o.note(ctx, audit.Event{
		Action: audit.ApprovalAnswered, UserID: run.UserID, RunID: runID, SessionID: run.SessionID,
		ApprovalID: approvalID, Decision: d.Decision, Content: d.Reason,
	}, err)
	return err
}

// openQuestions reads which approvals of a run were asked and never resolved.
func openQuestions(ctx context.Context, s *store.Store, runID string) (open []string, err error) {
	reader, err := s.Events(ctx, runID, 0)
	if err != nil {
		return nil, err
	}
	defer reader.Close()
	run, err := s.Run(ctx, runID)
	if err != nil {
		return nil, err
	}
	for seq := int64(0); seq < run.LastSeq; {
		events, err := reader.Next(ctx)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		for _, ev := range events {
			seq = ev.Seq
			open = follow(open, ev.Type, ev.Data)
		}
	}
	return open, nil
}

// follow keeps the list of a run's open questions as an event changes it.
func follow(open []string, t protocol.EventType, data json.RawMessage) []string {
	var q struct {
		ApprovalID string `json:"approval_id"`
	}
	if t != protocol.EventApprovalRequested && t != protocol.EventApprovalResolved || json.Unmarshal(data, &q) != nil {
		return open
	}
	if t == protocol.EventApprovalRequested {
		return append(open, q.ApprovalID)
	}
	for i, id := range open {
		if id == q.ApprovalID {
			return append(open[:i:i], open[i+1:]...)
		}
	}
	return open
}
