package carrel

import (
	"testing"

	"carrel/internal/jail"
	"carrel/protocol"
)

func TestWarmWorkersAsRootTakeMappedMounts(t *testing.T) {
	cfg := DefaultConfig()
	layer := func(s protocol.LayerState) []protocol.Layer {
		return []protocol.Layer{{Name: jail.LayerIDMap, State: s}}
	}
	for name, c := range map[string]struct {
		report protocol.IsolationReport
		want   int
	}{
		"an ordinary user":  {protocol.IsolationReport{}, cfg.WarmWorkers},
		"root with them":    {protocol.IsolationReport{Root: true, Layers: layer(protocol.LayerOK)}, cfg.WarmWorkers},
		"root without them": {protocol.IsolationReport{Root: true, Layers: layer(protocol.LayerDegraded)}, 0},
		"root, not probed":  {protocol.IsolationReport{Root: true}, 0},
	} {
		if got := cfg.warmWorkers(c.report); got != c.want {
			t.Errorf("%s: %d warm workers, want %d", name, got, c.want)
		}
	}
}
