package worker

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"carrel/internal/agent"
	"carrel/protocol"
)

// execute runs an agent on a message, from RUN_STARTED to the run's ending.
func (w *Worker) execute(ctx context.Context, p *protocol.ExecuteParams) (any, error) {
	a, name, err := w.agentOf(p)
	if err != nil {
		return nil, err
	}
	release, err := w.admit()
	if err != nil {
		return nil, err
	}
	defer release()
	if p.RunID == "" { // typed by hand: the host always names its runs
		p.RunID = newID("run_", time.Now())
	}
	if p.SessionID == "" {
		p.SessionID = "session-" + rand.Text()
	}
	// The ending must come even when ctx has ended, so events go by a context
	// of their own; the connection's end is what stops them.
	events := &emitter{runID: p.RunID, notify: w.conn.Notify}
	sendCtx := context.WithoutCancel(ctx)
	if err := events.emit(sendCtx, protocol.EventRunStarted, protocol.RunStarted{SessionID: p.SessionID, Agent: name}); err != nil {
		return nil, err
	}
	// A worker has one processor: without this the event would leave only when the
	// agent first waits for something, a tenth of a millisecond later.
	runtime.Gosched()
	w.mu.Lock()
	policy := w.policy
	w.mu.Unlock()
	result, err := a.Run(ctx, &agent.Run{
		ID:          p.RunID,
		SessionID:   p.SessionID,
		Message:     p.Message,
		Attachments: p.Attachments,
		Config:      p.Config,
		Env:         w.env(map[string]string{"SANDBOX_SESSION_ID": p.SessionID}),
		Tools:       w.tools,
		Emit:        w.warming(events.emit),
		Approve: func(ctx context.Context, p protocol.ApproveParams) (protocol.ApproveResult, error) {
			return w.approve(ctx, events, p)
		},
		Denied: func(ctx context.Context, d *protocol.Denial) {
			w.denied(ctx, protocol.DeniedParams{RunID: p.RunID, Denial: *d})
		},
		Decided: func(ctx context.Context, p protocol.DecidedParams) { _ = w.conn.Notify(ctx, protocol.MethodDecided, p) },
		Policy:  policy,
		Webhook: w.webhook,
	})
	if err != nil {
		failure := failureOf(ctx, err)
		if err := events.emit(sendCtx, protocol.EventRunError, protocol.RunError{Code: failure.Code, Message: failure.Message}); err != nil {
			return nil, err
		}
		return nil, failure
	}
	if err := events.emit(sendCtx, protocol.EventRunFinished, result); err != nil {
		return nil, err
	}
	return result, nil
}

// warming has a tool host started as soon as the model begins a run's first call: its
// input is still to come. Not earlier, since the start would take the processor from
// the first answer: that came 15 to 25 ms later (BenchmarkFirstText, cold).
func (w *Worker) warming(emit func(context.Context, protocol.EventType, any) error) func(context.Context, protocol.EventType, any) error {
	var once sync.Once
	return func(ctx context.Context, t protocol.EventType, data any) error {
		if t == protocol.EventToolCallStart {
			once.Do(func() { w.tools.Warm(context.WithoutCancel(ctx)) })
		}
		return emit(ctx, t, data)
	}
}

// webhook has the host ask a webhook: no sandbox knows its URL, or has a network.
func (w *Worker) webhook(ctx context.Context, p protocol.HookParams) (r protocol.HookResult, err error) {
	err = w.conn.Call(ctx, protocol.MethodHook, p, &r)
	return r, err
}

func (w *Worker) agentOf(p *protocol.ExecuteParams) (agent.Agent, string, error) {
	if p.Message == "" {
		return nil, "", protocol.Errorf(protocol.CodeInvalidRequest, "message: must not be empty")
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	name := p.Config.Agent
	if name == "" {
		name = w.agent
	}
	a, ok := w.agents[name]
	if !ok {
		return nil, "", w.unknownAgent(name)
	}
	return a, name, nil
}

// failureOf gives an agent's error its code. A run whose context has ended was
// canceled, whatever the agent met on its way out.
func failureOf(ctx context.Context, err error) *protocol.Error {
	if ctx.Err() != nil {
		return protocol.Errorf(protocol.CodeCanceled, "the run was canceled")
	}
	if e, ok := errors.AsType[*protocol.Error](err); ok {
		return e
	}
	return protocol.Errorf(protocol.CodeAgentError, "%w", err)
}

// emitter numbers a run's events. Its lock is held while one is handed to the
// connection, so that numbers and order agree.
type emitter struct {
	runID  string
	notify func(ctx context.Context, method string, params any) error

	mu  sync.Mutex
	seq int64
}

func (e *emitter) emit(ctx context.Context, t protocol.EventType, data any) error {
	raw, err := json.Marshal(data)
	if err != nil {
		return fmt.Errorf("encode %s: %w", t, err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	err = e.notify(ctx, protocol.MethodEvent, protocol.EventParams{RunID: e.runID, Seq: e.seq + 1, Type: t, Data: raw})
	if err != nil {
		return fmt.Errorf("send %s: %w", t, err)
	}
	e.seq++
	return nil
}
