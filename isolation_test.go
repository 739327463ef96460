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

func TestWhatIsRequiredByNameIsRequiredInEitherMode(t *testing.T) {
	layer := func(name string, required bool) protocol.Layer {
		return protocol.Layer{Name: name, State: protocol.LayerDegraded, Detail: "less", Required: required}
	}
	for name, c := range map[string]struct {
		mode   string
		layer  protocol.Layer
		passes bool
	}{
		"strict, a layer of every sandbox":   {"strict", layer(jail.LayerLandlock, true), false},
		"degraded, a layer of every sandbox": {"degraded", layer(jail.LayerLandlock, true), true},
		"strict, not required":               {"strict", layer(jail.LayerCgroup, false), true},
		"strict, required by name":           {"strict", layer(jail.LayerCgroup, true), false},
		"degraded, required by name":         {"degraded", layer(jail.LayerQuota, true), false},
		"degraded, not required":             {"degraded", layer(jail.LayerQuota, false), true},
	} {
		r := protocol.IsolationReport{Mode: c.mode, Layers: []protocol.Layer{c.layer}}
		if err := CheckIsolation(r); (err == nil) != c.passes {
			t.Errorf("%s: %v", name, err)
		}
		if len(r.Layers) != 1 {
			t.Errorf("%s: the report has changed", name)
		}
	}
}
