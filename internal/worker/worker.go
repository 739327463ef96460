// Package worker is the jailed half's conversation with the orchestrator: the
// methods of its JSON-RPC stream, carried out by agents and tool hosts.
package worker

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"slices"
	"sync"
	"time"

	"carrel/internal/agent"
	"carrel/internal/agent/claude"
	"carrel/internal/agent/shell"
	"carrel/internal/hook"
	"carrel/internal/jail"
	"carrel/internal/jsonrpc"
	"carrel/internal/reap"
	"carrel/internal/tool"
	"carrel/protocol"
)

// Worker answers the orchestrator. It is safe for concurrent use.
type Worker struct {
	conn    *jsonrpc.Conn
	stop    context.CancelFunc // ends Run after "shutdown"
	entered *jail.Entered
	tools   *tool.Hosts
	agents  map[string]agent.Agent

	mu          sync.Mutex
	initialized bool
	agent       string // default of its runs
	limits      protocol.WorkerLimits
	approval    time.Duration // how long the host waits for an answer
	policy      *hook.Policy  // nil = no rule and no hook
	active      int
}

var _ jsonrpc.Handler = (*Worker)(nil)

// defaults hold for a worker that is driven by hand, without "initialize".
var defaults = protocol.WorkerLimits{MaxRuns: 4, MaxOutputBytes: 256 << 10}

// Run serves the stream until the orchestrator closes it, says "shutdown" or
// breaks the protocol. more are as in [Main].
func Run(ctx context.Context, e *jail.Entered, more map[string]agent.Agent) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	w := &Worker{
		stop:    stop,
		entered: e,
		tools:   tool.NewHosts(reap.New(), e.Limits, e.Missing),
		agents:  map[string]agent.Agent{shell.Name: shell.Agent{}},
		agent:   shell.Name,
		limits:  defaults,
	}
	if e.Broker != nil {
		var err error
		if w.agents[claude.Name], err = newClaude(ctx, e); err != nil {
			return err
		}
	}
	maps.Copy(w.agents, more)
	w.conn = jsonrpc.NewConn(stdio{Reader: e.In, Writer: e.Out, closers: []io.Closer{e.In, e.Out}}, w, jsonrpc.Options{})
	if e.Broker == nil {
		w.tools.Warm(ctx) // a user is bound: a command will come. (Else a model is asked first.)
	}
	err := w.conn.Run(ctx)
	if errors.Is(err, context.Canceled) {
		return nil // after "shutdown"
	}
	return err
}

type stdio struct {
	io.Reader
	io.Writer

	closers []io.Closer
}

func (s stdio) Close() error {
	var errs []error
	for _, c := range s.closers {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// Notify implements [jsonrpc.Handler]: the one notification a worker gets,
// "cancel", the connection itself takes; others are ignored, as JSON-RPC says.
func (w *Worker) Notify(context.Context, string, json.RawMessage) error { return nil }

// Request implements [jsonrpc.Handler].
func (w *Worker) Request(ctx context.Context, method string, params json.RawMessage) (any, error) {
	switch method {
	case protocol.MethodInitialize:
		return with(params, w.initialize)
	case protocol.MethodExecute:
		return with(params, func(p *protocol.ExecuteParams) (any, error) { return w.execute(ctx, p) })
	case protocol.MethodExec:
		return with(params, func(p *protocol.ExecParams) (any, error) { return w.exec(ctx, p) })
	case protocol.MethodPing:
		return struct{}{}, nil
	case protocol.MethodShutdown:
		w.stop()
		return struct{}{}, nil
	}
	return nil, jsonrpc.ErrMethodNotFound
}

func with[P any](raw json.RawMessage, do func(*P) (any, error)) (any, error) {
	var p P
	if err := json.Unmarshal(raw, &p); err != nil {
		return nil, &jsonrpc.Error{Code: protocol.RPCInvalidParams, Message: err.Error()}
	}
	return do(&p)
}

func (w *Worker) initialize(p *protocol.InitializeParams) (any, error) {
	if p.ProtocolVersion != protocol.Version {
		return nil, protocol.Errorf(protocol.CodeInvalidRequest,
			"protocol version %d, this worker speaks %d: install carrel and carrel-worker together", p.ProtocolVersion, protocol.Version)
	}
	if p.UserID != w.entered.UserID {
		return nil, protocol.Errorf(protocol.CodeInvalidRequest, "this worker is bound to another user")
	}
	policy, err := hook.NewPolicy(p.Permissions)
	if err != nil { // the host has checked them: another version's
		return nil, protocol.Errorf(protocol.CodeInvalidRequest, "%w", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.initialized {
		return nil, protocol.Errorf(protocol.CodeInvalidRequest, "initialize: already done; a worker is bound once")
	}
	if p.Agent != "" {
		if w.agents[p.Agent] == nil {
			return nil, w.unknownAgent(p.Agent)
		}
		w.agent = p.Agent
	}
	w.approval = time.Duration(p.ApprovalSeconds * float64(time.Second))
	if p.Limits.MaxRuns > 0 {
		w.limits.MaxRuns = p.Limits.MaxRuns
	}
	if p.Limits.MaxOutputBytes > 0 {
		w.limits.MaxOutputBytes = p.Limits.MaxOutputBytes
	}
	w.policy = policy
	w.initialized = true
	return protocol.InitializeResult{
		ProtocolVersion: protocol.Version,
		Agent:           w.agent,
		Capabilities:    slices.Sorted(maps.Keys(w.agents)),
		Isolation:       jail.Inside(w.entered.Missing),
	}, nil
}

func (w *Worker) unknownAgent(name string) error {
	return protocol.Errorf(protocol.CodeInvalidRequest, "agent: there is no %q; there is %q",
		name, slices.Sorted(maps.Keys(w.agents)))
}

// admit counts a run or a command against the limit the host should have kept.
func (w *Worker) admit() (release func(), err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.active >= w.limits.MaxRuns {
		return nil, protocol.Errorf(protocol.CodeConflict, "this worker has %d runs going already", w.active)
	}
	w.active++
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.active--
	}, nil
}
