package carrel

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"carrel/internal/spelling"
)

// ConfigSource says where [LoadConfig] looks.
type ConfigSource struct {
	// Environ is what os.Environ gives. Of two entries with one name the last
	// counts.
	Environ []string
	// File is the path of a KEY=value file; "" = what CARREL_CONFIG names in
	// Environ, if it does.
	File string
	// Overrides holds the values of flags, by key.
	Overrides map[string]string
}

// The keys that are no setting of the daemon's, and so stand in no file: one tells
// where the file is, the others are for who talks to a daemon.
const (
	keyConfig = "CARREL_CONFIG"
	keyURL    = "CARREL_URL"
	keyAPIKey = "CARREL_API_KEY" //nolint:gosec // its name
)

func isOutside(key string) bool { return key == keyConfig || key == keyURL || key == keyAPIKey }

const sourceEnvironment, sourceFlag = "environment", "flag"

// settings is what was set, each key's winner.
type settings struct {
	values   map[string]setting
	warnings []string
}

type setting struct {
	value  string
	source string // as in [Fault]
}

func (s settings) has(key string) bool { return s.values[key].value != "" }

// environment gives the values as caarlos0/env takes them.
func (s settings) environment() map[string]string {
	values := make(map[string]string, len(s.values))
	for key, set := range s.values {
		values[key] = set.value
	}
	return values
}

// settings puts the sources on top of each other and finds the keys that do not
// exist.
func (src ConfigSource) settings() (settings, []Fault) {
	set := settings{values: make(map[string]setting)}
	environ := make(map[string]string)
	for _, entry := range src.Environ {
		if name, value, ok := strings.Cut(entry, "="); ok {
			environ[name] = value
		}
	}
	known := knownKeys()

	faults := set.addFile(src.fileName(environ), known)
	for name, value := range environ {
		switch {
		case isOutside(name):
		case slices.Contains(known, name):
			set.values[name] = setting{value, sourceEnvironment}
		case strings.HasPrefix(name, "SANDBOX_") || strings.HasPrefix(name, "CARREL_"):
			faults = append(faults, unknownKey(name, known, sourceEnvironment))
		}
	}
	for name, value := range src.Overrides {
		if !slices.Contains(known, name) || isOutside(name) {
			faults = append(faults, unknownKey(name, known, sourceFlag))
			continue
		}
		set.values[name] = setting{value, sourceFlag}
	}
	return set, faults
}

// Lookup tells what a single key is set to, without a look at what it means; "" if
// it is not set.
func (src ConfigSource) Lookup(key string) (string, error) {
	set, faults := src.settings()
	if len(faults) > 0 {
		return "", newConfigError(faults, set)
	}
	return set.values[key].value, nil
}

func (src ConfigSource) fileName(environ map[string]string) string {
	if src.File != "" {
		return src.File
	}
	return environ[keyConfig]
}

// addFile reads the file called name, if there is one. In the file every
// unknown key is a fault, since the file is carrel's alone.
func (s *settings) addFile(name string, known []string) []Fault {
	if name == "" {
		return nil
	}
	lines, faults, err := readConfigFile(name)
	if err != nil {
		return []Fault{{Source: name, Reason: err.Error()}}
	}
	seen := make(map[string]bool)
	for _, line := range lines {
		source := fmt.Sprintf("%s:%d", name, line.number)
		switch {
		case isOutside(line.key):
			faults = append(faults, Fault{Key: line.key, Source: source, Reason: "cannot stand in the file; set it in the environment or by its flag"})
		case !slices.Contains(known, line.key):
			faults = append(faults, unknownKey(line.key, known, source))
		case seen[line.key]:
			faults = append(faults, Fault{Key: line.key, Source: source, Reason: "is set twice in the file"})
		default:
			s.values[line.key] = setting{line.value, source}
			seen[line.key] = true
		}
	}
	if s.has("ANTHROPIC_API_KEY") {
		s.warnReadable(name)
	}
	return faults
}

// warnReadable warns if others can read a file that holds a key.
func (s *settings) warnReadable(name string) {
	info, err := os.Stat(name)
	if err == nil && info.Mode().Perm()&0o077 != 0 {
		s.warnings = append(s.warnings, fmt.Sprintf("%s: holds ANTHROPIC_API_KEY and has mode %#o; chmod 600 keeps others from reading it", name, info.Mode().Perm()))
	}
}

// unknownKey names the nearest known key. The value is left out: what it is,
// nobody knows.
func unknownKey(key string, known []string, source string) Fault {
	return Fault{Key: key, Source: source, Reason: "unknown key; the nearest known one is " + nearest(key, known)}
}

// nearest returns the word with the least Levenshtein distance from key; the
// first of several.
func nearest(key string, words []string) string {
	best, bestDistance := "", int(^uint(0)>>1)
	for _, word := range words {
		if d := spelling.Distance(key, word); d < bestDistance {
			best, bestDistance = word, d
		}
	}
	return best
}
