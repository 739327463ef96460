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

// TestTableHasOneOrder guards the numbers that pages and reports give the rows.
func TestTableHasOneOrder(t *testing.T) {
	first := attack.Rows()
	for range 20 {
		for i, r := range attack.Rows() {
			if r.ID != first[i].ID {
				t.Fatalf("row %d is %s, and was %s", i, r.ID, first[i].ID)
			}
		}
	}
}
