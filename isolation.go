package carrel

import (
	"context"
	"fmt"
	"os"
	"slices"

	"carrel/internal/jail"
	"carrel/protocol"
)

// Isolation finds out what isolation this host really gives, by starting a
// throw-away sandbox. It opens nothing of the configuration's.
func Isolation(ctx context.Context, cfg Config) protocol.IsolationReport {
	worker, err := cfg.workerPath()
	if err != nil {
		worker = cfg.WorkerPath // every layer then fails with what stands in the way
	}
	return jail.Probe(ctx, jail.ProbeOptions{Worker: worker, Mode: cfg.Isolation, Outside: cfg.outsideLayers()})
}

// outsideLayers are the layers around a sandbox that this version does not have.
func (c *Config) outsideLayers() []protocol.Layer {
	return []protocol.Layer{
		{
			Name:     jail.LayerCgroup,
			State:    protocol.LayerMissing,
			Detail:   "not used by this version",
			Meaning:  "memory and CPU of a sandbox have no common bound; processes are bounded by RLIMIT_NPROC",
			Fix:      "give the daemon itself a cgroup with limits",
			Required: slices.Contains(c.Require, jail.LayerCgroup),
		},
		{
			Name:     jail.LayerQuota,
			State:    protocol.LayerMissing,
			Detail:   "not used by this version",
			Meaning:  "a user can fill the file system of SANDBOX_BASE_DIR; one file is bounded by RLIMIT_FSIZE",
			Fix:      "put SANDBOX_BASE_DIR on a file system of its own",
			Required: slices.Contains(c.Require, jail.LayerQuota),
		},
	}
}

// CheckIsolation refuses a host that does not give what the configuration asks
// for.
func CheckIsolation(r protocol.IsolationReport) error {
	if unmet := jail.Vital(r); unmet != "" {
		return protocol.Errorf(protocol.CodeIsolationUnavailable, "no sandbox can be made on this host: %s", unmet)
	}
	if unmet := jail.Unmet(r); unmet != "" && r.Mode == isolationStrict {
		return protocol.Errorf(protocol.CodeIsolationUnavailable,
			"SANDBOX_ISOLATION=strict asks for more than this host gives: %s; see carrel doctor", unmet)
	}
	return nil
}

const isolationStrict = "strict"

// jailLimits are the limits that a sandbox is given from inside.
func (c *Config) jailLimits() jail.Limits {
	l := jail.DefaultLimits()
	l.PIDs = uint64(c.PIDsLimit)
	l.FileBytes = uint64(c.DiskQuota)
	l.DataBytes = uint64(c.MemoryLimit)
	return l
}

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

// warmWorkers is how many warm workers can be kept: as root a worker needs to
// know its user from the start, until slot uids are there.
func (c *Config) warmWorkers() int {
	if os.Geteuid() == 0 {
		return 0
	}
	return c.WarmWorkers
}
