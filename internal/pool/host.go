package pool

import (
	"context"
	"encoding/json"
	"fmt"

	"carrel/internal/jsonrpc"
	"carrel/protocol"
)

const (
	// maxQuestions is how many approvals one worker may have open.
	maxQuestions = 64
	// maxUnread is how many messages of one worker wait to be dispatched; past it
	// the worker has to wait.
	maxUnread = 256
)

// host answers what a worker sends.
type host struct {
	pool *Pool
	w    *worker
}

var _ jsonrpc.Handler = (*host)(nil)

// Notify takes in events and output. A violation ends the worker.
func (h *host) Notify(_ context.Context, method string, params json.RawMessage) error {
	h.w.handling.Store(true)
	err := h.take(method, params)
	h.w.heard.Add(1)
	h.w.handling.Store(false)
	if err != nil {
		h.pool.update(func(s *state) { s.doom(h.w, violation(err)) })
	}
	return err
}

// take ignores notifications that it does not know, as JSON-RPC wants it.
func (h *host) take(method string, params json.RawMessage) error {
	switch method {
	case protocol.MethodEvent:
		ev, err := eventOf(params)
		if err != nil {
			return fmt.Errorf("event: %w", err)
		}
		return h.w.calls.event(ev)
	case protocol.MethodExecOutput:
		var out protocol.ExecOutputParams
		if err := json.Unmarshal(params, &out); err != nil {
			return fmt.Errorf("exec_output: %w", err)
		}
		return h.w.calls.output(out)
	case protocol.MethodDenied:
		return h.denied(params)
	case protocol.MethodDecided:
		return h.decided(params)
	}
	return nil
}

// decided takes in what the worker says was decided of a tool.
func (h *host) decided(params json.RawMessage) error {
	var d protocol.DecidedParams
	if err := json.Unmarshal(params, &d); err != nil {
		return fmt.Errorf("decided: %w", err)
	}
	if err := h.going(d.RunID); err != nil {
		return fmt.Errorf("decided: %w", err)
	}
	if fault := d.Fault(); fault != "" {
		return fmt.Errorf("decided: %s", fault)
	}
	if h.pool.o.Decided != nil {
		h.pool.o.Decided(h.w.user.id, d)
	}
	return nil
}

// denied takes in what the worker says that its sandbox has denied.
func (h *host) denied(params json.RawMessage) error {
	var d protocol.DeniedParams
	if err := json.Unmarshal(params, &d); err != nil {
		return fmt.Errorf("denied: %w", err)
	}
	key := runKey(d.RunID)
	if d.RunID == "" {
		key = execKey(d.ExecID)
	}
	if h.w.calls.find(key) == nil {
		return fmt.Errorf("denied in %.40q, which is not going", key)
	}
	if d.TooLong() {
		return fmt.Errorf("denied: a text of more than %d bytes", protocol.MaxDenialBytes)
	}
	if h.pool.o.Denied != nil {
		h.pool.o.Denied(h.w.user.id, d)
	}
	return nil
}

// Request answers approve and hook. Where nobody can answer, the answer is no.
func (h *host) Request(ctx context.Context, method string, params json.RawMessage) (any, error) {
	h.w.heard.Add(1)
	switch method {
	case protocol.MethodApprove:
		return h.approve(ctx, params)
	case protocol.MethodHook:
		return h.hook(ctx, params)
	}
	return nil, jsonrpc.ErrMethodNotFound
}

func (h *host) approve(ctx context.Context, params json.RawMessage) (any, error) {
	var ask protocol.ApproveParams
	if err := json.Unmarshal(params, &ask); err != nil {
		return nil, protocol.Errorf(protocol.CodeInvalidRequest, "approve: %w", err)
	}
	if err := h.going(ask.RunID); err != nil {
		return nil, err
	}
	if h.pool.o.Approve == nil {
		return protocol.ApproveResult{Decision: protocol.Deny, Reason: "nobody is there to approve"}, nil
	}
	return h.pool.o.Approve(ctx, h.w.user.id, ask)
}

func (h *host) hook(ctx context.Context, params json.RawMessage) (any, error) {
	var ask protocol.HookParams
	if err := json.Unmarshal(params, &ask); err != nil {
		return nil, protocol.Errorf(protocol.CodeInvalidRequest, "hook: %w", err)
	}
	if err := h.going(ask.RunID); err != nil {
		return nil, err
	}
	if h.pool.o.Hook == nil {
		return nil, protocol.Errorf(protocol.CodeNotFound, "hook: there is no webhook")
	}
	return h.pool.o.Hook(ctx, h.w.user.id, ask)
}

// going refuses what is asked for a run that is not this worker's.
func (h *host) going(runID string) error {
	if h.w.calls.find(runKey(runID)) == nil {
		return protocol.Errorf(protocol.CodeNotFound, "run %.40q is not going", runID)
	}
	return nil
}
