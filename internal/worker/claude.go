package worker

import (
	"context"
	"os"

	"carrel/internal/agent"
	"carrel/internal/agent/claude"
	"carrel/internal/door"
	"carrel/internal/hook"
	"carrel/internal/jail"
	"carrel/internal/tool"
)

// newClaude makes the agent with a model, for a worker that has a line to the broker.
func newClaude(ctx context.Context, e *jail.Entered) (agent.Agent, error) {
	workspace, err := os.OpenRoot(jail.WorkspaceDir)
	if err != nil {
		return nil, err
	}
	return claude.New(claude.Options{
		BaseURL:   door.BaseURL,
		Transport: door.OpenLate(ctx, e.Broker), // many workers never ask a model
		Home:      e.Home,
		Workspace: workspace,
		Tools: func(r *agent.Run, dir string) claude.Tools {
			return tool.NewSet(tool.SetOptions{Hosts: r.Tools, Env: r.Env, Dir: dir})
		},
		Gate: newGate,
	}), nil
}

// newGate makes the gate between the agent and the tools of a run.
func newGate(r *agent.Run, t claude.Tools) (claude.Gate, error) {
	options := hook.GateOptions{
		Policy: r.Policy, Mode: r.Config.PermissionMode, RunID: r.ID, SessionID: r.SessionID,
		Env: r.Env, Run: r.Tools.Run, Dir: t.Dir, Approve: r.Approve, Webhook: r.Webhook, Decided: r.Decided,
	}
	if set, ok := t.(*tool.Set); ok {
		options.Resolve = set.Resolve
	}
	return hook.NewGate(options)
}
