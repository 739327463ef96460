package carrel

import (
	"slices"
	"strings"
)

// This file holds what the configuration can name and this version cannot do.
// Each part goes when its piece is built; nothing else knows of it.

// builtAgents lists the agents there are.
func builtAgents() []string { return []string{"shell"} }

// defaultAgent returns the agent of runs that name none: claude where there is
// a key for it, else (and until it is built) shell.
func defaultAgent(hasKey bool) string {
	if hasKey && slices.Contains(builtAgents(), "claude") {
		return "claude"
	}
	return "shell"
}

// checkUnbuilt refuses what is not available in this version, rather than
// start without the protection or the storage that was asked for.
func checkUnbuilt(c Config) []Fault {
	var faults []Fault
	if c.APIKeysFile != "" {
		faults = append(faults, Fault{
			Key: "CARREL_API_KEYS_FILE", Value: c.APIKeysFile,
			Reason: "sign-in is not available in this version, so API keys would protect nothing; leave it out and listen on a loopback address",
		})
	}
	if isPostgresURL(c.DatabaseURL) {
		faults = append(faults, Fault{
			Key:    "CARREL_DATABASE_URL",
			Reason: "Postgres is not available in this version", Allowed: "sqlite:PATH",
		})
	}
	return faults
}

// unbuiltWarnings says where a configured thing does nothing yet.
func unbuiltWarnings(c Config) []string {
	if c.AnthropicAPIKey.IsSet() && !slices.Contains(builtAgents(), "claude") {
		return []string{"ANTHROPIC_API_KEY: a key is configured, but this version has no claude agent; runs use " + c.Agent}
	}
	return nil
}

func isPostgresURL(url string) bool {
	return strings.HasPrefix(url, "postgres://") || strings.HasPrefix(url, "postgresql://")
}
func knownAgent(name string) bool { return slices.Contains(builtAgents(), name) }
