package carrel

import "strings"

// This file holds what the configuration can name and this version cannot do.
// Each part goes when its piece is built; nothing else knows of it.

// checkUnbuilt refuses what is not available in this version, rather than
// start without the protection or the storage that was asked for.
func checkUnbuilt(c Config) []Fault {
	var faults []Fault
	if isPostgresURL(c.DatabaseURL) {
		faults = append(faults, Fault{
			Key:    "CARREL_DATABASE_URL",
			Reason: "Postgres is not available in this version", Allowed: "sqlite:PATH",
		})
	}
	return faults
}

func isPostgresURL(url string) bool {
	return strings.HasPrefix(url, "postgres://") || strings.HasPrefix(url, "postgresql://")
}
