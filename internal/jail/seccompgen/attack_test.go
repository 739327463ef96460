package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/elastic/go-seccomp-bpf/arch"

	"carrel/internal/jail"
	"carrel/internal/jail/attack"
)

// TestEveryNameOfWhatStopsAnAttackIsKnown: what a row names is a layer, or one of the
// small set that package attack has for the rest, or a call that this filter does not
// allow whatever its arguments are.
func TestEveryNameOfWhatStopsAnAttackIsKnown(t *testing.T) {
	calls := []string{"arch"}
	for _, name := range arch.X86_64.SyscallNumbers {
		if !slices.Contains(allowed, name) {
			calls = append(calls, name)
		}
	}
	// Newer than the library's table, so that the filter cannot name it but to refuse it.
	calls = append(calls, "open_tree_attr")
	for _, r := range attack.Rows() {
		for _, by := range r.StoppedBy {
			for name := range strings.SplitSeq(by, "+") {
				call, isCall := strings.CutPrefix(name, jail.LayerSeccomp+":")
				if isCall && !slices.Contains(calls, call) || !isCall && !slices.Contains(attack.Stops(), name) {
					t.Errorf("%s is stopped by %q, which is not known", r.ID, name)
				}
			}
		}
	}
}
