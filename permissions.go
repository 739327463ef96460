package carrel

import (
	"context"
	"fmt"
	"os"

	"carrel/internal/hook"
	"carrel/internal/hook/webhook"
	"carrel/internal/logline"
	"carrel/internal/tracing"
	"carrel/protocol"
)

// askWebhook asks an operator's webhook on behalf of a run.
func (o *Orchestrator) askWebhook(ctx context.Context, userID string, p protocol.HookParams) (protocol.HookResult, error) {
	o.mu.Lock()
	g := o.going[p.RunID]
	o.mu.Unlock()
	if g != nil && g.ctx != nil {
		ctx = tracing.Carry(logline.Carry(ctx, g.ctx), g.ctx)
	}
	return o.webhooks.Call(ctx, userID, p)
}

// readPermissions reads the operator's rules and hooks. A file that is named and
// cannot be read, or has a fault, stops the start: no rule is no protection.
func (o *Orchestrator) readPermissions() (err error) {
	if file := o.cfg.PermissionsFile; file != "" {
		content, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("CARREL_PERMISSIONS_FILE: %w", err)
		}
		if o.permissions, err = hook.Parse(content); err != nil {
			return fmt.Errorf("CARREL_PERMISSIONS_FILE: %s: %w", file, err)
		}
	}
	o.webhooks, err = webhook.New(o.permissions.Hooks, o.log, tracing.Traceparent)
	return err
}
