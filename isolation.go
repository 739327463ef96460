package carrel

import (
	"context"
	"fmt"
	"os"
	"slices"

	"carrel/internal/cgroup"
	"carrel/internal/jail"
	"carrel/internal/workspace"
	"carrel/protocol"
)

// Isolation finds out what isolation this host really gives, by starting a
// throw-away sandbox. It opens nothing of the configuration's.
func Isolation(ctx context.Context, cfg Config) protocol.IsolationReport {
	worker, err := cfg.FindWorker()
	if err != nil {
		worker = cfg.WorkerPath // every layer then fails with what stands in the way
	}
	return jail.Probe(ctx, jail.ProbeOptions{Worker: worker, Mode: cfg.Isolation, BaseDir: cfg.BaseDir, Outside: cfg.outsideLayers()})
}

// outsideLayers are the layers around a sandbox.
func (c *Config) outsideLayers() []protocol.Layer {
	return []protocol.Layer{
		c.cgroupLayer(cgroup.Detect()),
		c.quotaLayer(workspace.DetectQuota(c.BaseDir)),
	}
}

// cgroupLayer puts into the report's words what bounds a sandbox in sum.
func (c *Config) cgroupLayer(s cgroup.Support) protocol.Layer {
	l := protocol.Layer{
		Name:     jail.LayerCgroup,
		State:    protocol.LayerOK,
		Detail:   s.Detail,
		Meaning:  s.Meaning,
		Fix:      s.Fix,
		Required: slices.Contains(c.Require, jail.LayerCgroup),
	}
	if s.State != cgroup.Full {
		l.State = protocol.LayerDegraded
	}
	return l
}

// CheckIsolation refuses a host that does not give what the configuration asks
// for.
func CheckIsolation(r protocol.IsolationReport) error {
	if unmet := jail.Vital(r); unmet != "" {
		return protocol.Errorf(protocol.CodeIsolationUnavailable, "no sandbox can be made on this host: %s", unmet)
	}
	asks := "SANDBOX_ISOLATION=strict"
	if r.Mode != isolationStrict {
		// Degraded does without what nobody asked for by name.
		asks = "SANDBOX_REQUIRE"
		r.Layers = slices.DeleteFunc(slices.Clone(r.Layers), func(l protocol.Layer) bool { return !slices.Contains(optional, l.Name) })
	}
	if unmet := jail.Unmet(r); unmet != "" {
		return protocol.Errorf(protocol.CodeIsolationUnavailable, "%s asks for more than this host gives: %s; see carrel doctor", asks, unmet)
	}
	return nil
}

// warnOfIsolation says in the log what degraded isolation does without.
func (o *Orchestrator) warnOfIsolation(ctx context.Context) {
	for _, l := range o.isolation.Layers {
		if l.Required && l.State != protocol.LayerOK {
			o.log.WarnContext(ctx, "isolation is degraded", "layer", l.Name, "state", string(l.State), "detail", l.Detail, "without_it", l.Meaning, "fix", l.Fix)
		}
	}
}

// optional are the layers that are required only by SANDBOX_REQUIRE.
var optional = []string{jail.LayerCgroup, jail.LayerQuota}

// holds reports whether a layer holds in full.
func holds(r protocol.IsolationReport, layer string) bool {
	return slices.ContainsFunc(r.Layers, func(l protocol.Layer) bool { return l.Name == layer && l.State == protocol.LayerOK })
}

const isolationStrict = "strict"

// workerEnv is the whole environment of a user's worker: what the contract
// names, and the allowed names of the daemon's own.
func (c *Config) workerEnv(userID string) []string {
	var allowed []string
	for _, name := range c.AllowedEnvVars {
		if value, ok := os.LookupEnv(name); ok {
			allowed = append(allowed, fmt.Sprintf("%s=%s", name, value))
		}
	}
	return jail.BaseEnv(userID, allowed)
}

// warmWorkers is how many warm workers can be kept on the host of this report: as
// root they take mounts that translate owners.
func (c *Config) warmWorkers(r protocol.IsolationReport) int {
	if r.Root && !holds(r, jail.LayerIDMap) {
		return 0
	}
	return c.WarmWorkers
}

// slotUIDs is how many uids of the range are for warm workers: a worker that was
// warm once keeps its own until it ends.
func (c *Config) slotUIDs() int {
	if c.WarmWorkers == 0 {
		return 0
	}
	return c.MaxWorkers
}
