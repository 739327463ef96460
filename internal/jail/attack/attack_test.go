package attack_test

import (
	"strings"
	"testing"

	"carrel/internal/jail/attack"
)

// TestEveryRowIsWellFormed holds what doctor and the reports rely on.
func TestEveryRowIsWellFormed(t *testing.T) {
	seen := make(map[string]bool)
	for _, r := range attack.Rows() {
		if r.ID == "" || seen[r.ID] || r.Title == "" || r.Group == "" || len(r.StoppedBy) == 0 || r.Attack == nil || r.Control == "" {
			t.Errorf("row %q is incomplete or there twice: %+v", r.ID, r)
		}
		if (r.Tier == attack.Worker) != strings.HasPrefix(r.ID, "worker-") {
			t.Errorf("row %q is of the %s tier", r.ID, r.Tier)
		}
		seen[r.ID] = true
	}
}
