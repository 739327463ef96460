package worker

import (
	"context"
	"time"

	"carrel/protocol"
)

// approve asks the host whether a tool may be used, and waits for the answer. The
// run's events tell of the question and of what became of it, whatever that is.
func (w *Worker) approve(ctx context.Context, events *emitter, p protocol.ApproveParams) (protocol.ApproveResult, error) {
	p.RunID = events.runID
	p.ApprovalID = newID("apr_", time.Now())
	w.mu.Lock()
	patience := w.approval
	w.mu.Unlock()
	sendCtx := context.WithoutCancel(ctx)
	err := events.emit(sendCtx, protocol.EventApprovalRequested, protocol.ApprovalRequested{
		ApprovalID: p.ApprovalID, ToolCallID: p.ToolCallID, Tool: p.Tool, Input: p.Input, Reason: p.Reason,
		ExpiresAt: time.Now().Add(patience).UTC(),
	})
	if err != nil {
		return protocol.ApproveResult{}, err
	}
	var answer protocol.ApproveResult
	err = w.conn.Call(ctx, protocol.MethodApprove, p, &answer)
	switch {
	case ctx.Err() != nil:
		answer = protocol.ApproveResult{Decision: protocol.Deny, Reason: "the run was canceled before an answer came"}
		err = context.Cause(ctx)
	case err != nil:
		answer = protocol.ApproveResult{Decision: protocol.Deny, Reason: "the question could not be put: " + err.Error()}
		err = nil // denied is all the agent needs to know
	case answer.Decision != protocol.Allow:
		answer.Decision = protocol.Deny // fail closed, whatever it says
	}
	resolved := protocol.ApprovalResolved{ApprovalID: p.ApprovalID, Decision: answer.Decision, Reason: answer.Reason}
	if sent := events.emit(sendCtx, protocol.EventApprovalResolved, resolved); sent != nil {
		return protocol.ApproveResult{}, sent
	}
	return answer, err
}
