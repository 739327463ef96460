package carrel

import (
	"fmt"
	"os"

	"carrel/internal/hook"
	"carrel/internal/hook/webhook"
)

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
	o.webhooks, err = webhook.New(o.permissions.Hooks, o.log)
	return err
}
