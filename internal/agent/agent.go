// Package agent is the jailed half's idea of what works on a message: it reads
// it, uses tools, and tells what happens as events. Its implementations are the
// packages below it.
package agent

import (
	"context"

	"carrel/internal/hook"
	"carrel/internal/tool"
	"carrel/protocol"
)

// Agent works on messages. Implementations are safe for concurrent use: runs of
// one user may go on side by side.
type Agent interface {
	// Run works on one message. Between RUN_STARTED and the ending, which the
	// worker sends, every event is the agent's. When ctx ends it ends what it
	// started and returns ctx's cause. An error is a *protocol.Error where a code
	// says more than agent_error.
	Run(ctx context.Context, r *Run) (*protocol.Result, error)
}

// Run is one message and what there is to work on it with.
type Run struct {
	ID          string
	SessionID   string
	Message     string
	Attachments []protocol.Attachment
	Config      protocol.RunConfig
	// Env is the environment of every command of this run, KEY=value.
	Env   []string
	Tools *tool.Hosts
	// Emit sends an event; it blocks while the host is slower than the agent. It
	// may be called by several goroutines.
	Emit func(ctx context.Context, t protocol.EventType, data any) error
	// Approve asks a person whether a tool may be used, and tells of it in events.
	// It blocks until there is an answer, which may be that there is none: deny.
	// An error says that the run was canceled or has lost its host.
	Approve func(ctx context.Context, p protocol.ApproveParams) (protocol.ApproveResult, error)
	// Denied tells the host what the sandbox has denied the run; nil = nobody is told.
	Denied func(ctx context.Context, d *protocol.Denial)
	// Decided tells the host what was decided of the use of a tool.
	Decided func(ctx context.Context, p protocol.DecidedParams)
	// Policy and Webhook are for a hook.Gate: whoever lets a model use tools puts
	// one between the two. What a user runs himself needs none.
	Policy  *hook.Policy
	Webhook func(ctx context.Context, p protocol.HookParams) (protocol.HookResult, error)
}
