package carrel

import (
	"cmp"
	"slices"
	"strings"
)

// Fault is one thing wrong with a configuration.
type Fault struct {
	// Key is the key at fault; empty if it is the file itself or a line of it.
	Key string
	// Value is what was given; empty if nothing was, or if it may be secret.
	Value string
	// Reason says in a sentence without a full stop what is wrong.
	Reason string
	// Allowed is the allowed range or the allowed words; empty if the reason
	// says it.
	Allowed string
	// Source is where the value came from: "environment", "flag", or the
	// file's name and line; empty if unknown.
	Source string
}

func (f Fault) String() string {
	var b strings.Builder
	if f.Key != "" {
		b.WriteString(quoteValue(f.Key))
	}
	if f.Value != "" {
		b.WriteString("=" + quoteValue(f.Value))
	}
	if f.Key == "" {
		b.WriteString(f.Source)
	}
	b.WriteString(": " + f.Reason)
	var notes []string
	if f.Allowed != "" {
		notes = append(notes, "allowed: "+f.Allowed)
	}
	if f.Source != "" && f.Key != "" {
		notes = append(notes, "from "+f.Source)
	}
	if len(notes) > 0 {
		b.WriteString(" (" + strings.Join(notes, "; ") + ")")
	}
	return b.String()
}

// ConfigError is every fault of a configuration, sorted by key.
type ConfigError struct {
	Faults []Fault
}

// Error gives one line a fault.
func (e *ConfigError) Error() string {
	lines := make([]string, len(e.Faults))
	for i, fault := range e.Faults {
		lines[i] = fault.String()
	}
	return strings.Join(lines, "\n")
}

// newConfigError adds to each fault where its value came from.
func newConfigError(faults []Fault, set settings) *ConfigError {
	for i, fault := range faults {
		if given, ok := set.values[fault.Key]; ok && fault.Source == "" {
			faults[i].Source = given.source
		}
	}
	slices.SortStableFunc(faults, func(a, b Fault) int { return cmp.Compare(a.Key, b.Key) })
	return &ConfigError{Faults: faults}
}

func hasFault(faults []Fault, key string) bool {
	return slices.ContainsFunc(faults, func(f Fault) bool { return f.Key == key })
}
