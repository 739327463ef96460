package cgroup

import (
	"slices"
	"strings"
)

// State is how much of a sandbox the host lets this process bound.
type State string

// The states of [Support].
const (
	Full    State = "full"    // memory, tasks and CPU time
	Partial State = "partial" // some of them, or none but a whole kill
	None    State = "none"    // no group can be made
)

// The controllers that bound a sandbox, by the kernel's names.
const (
	Memory = "memory"
	PIDs   = "pids"
	CPU    = "cpu"
)

// cpuacct measures CPU time on v1, where v2's cpu.stat is not to be had.
const cpuacct = "cpuacct"

// wanted is every controller that [Full] needs.
func wanted() []string { return []string{Memory, PIDs, CPU} }

// Support is what this host gives to this process.
type Support struct {
	State State
	// Bounds are the controllers that hold, of Memory, PIDs and CPU, in this order.
	Bounds []string
	// Detail says what there is in half a line ("v1: memory, pids, cpu").
	Detail string
	// Meaning says what a missing part means, Fix how to get it. Empty if State is Full.
	Meaning string
	Fix     string
}

// Has reports whether the controller bounds a sandbox here.
func (s Support) Has(controller string) bool { return slices.Contains(s.Bounds, controller) }

// refusal is why a place cannot be used, and what would change that.
type refusal struct {
	reason string
	fix    string
}

const meaningNone = "nothing bounds a sandbox's memory, tasks and CPU time in sum: only the limits of each process hold"

const fixDelegate = "run carrel as root, or give it a group of its own to divide: " +
	"Delegate=yes in its systemd unit, or systemd-run --user --scope -p Delegate=yes carrel serve"

// support puts into words what a survey found.
func support(places []place, refused []refusal) Support {
	s := Support{State: Partial, Detail: detail(places)}
	var missing []string
	for _, c := range wanted() {
		if slices.ContainsFunc(places, func(p place) bool { return slices.Contains(p.controllers, c) }) {
			s.Bounds = append(s.Bounds, c)
		} else {
			missing = append(missing, c)
		}
	}
	switch {
	case len(missing) == 0:
		s.State = Full
		return s
	case len(places) == 0:
		s.State = None
		s.Meaning = meaningNone
	default:
		s.Meaning = "nothing bounds these of a sandbox in sum: " + strings.Join(missing, ", ")
	}
	var reasons, fixes []string
	for _, r := range refused {
		reasons = append(reasons, r.reason)
		if r.fix != "" && !slices.Contains(fixes, r.fix) {
			fixes = append(fixes, r.fix)
		}
	}
	if s.State == None {
		s.Detail = strings.Join(reasons, "; ")
	}
	if s.Fix = strings.Join(fixes, "; or "); s.Fix == "" {
		s.Fix = "the controllers " + strings.Join(missing, ", ") + " are not offered to this process: " +
			"enable them in the groups above it (for systemd's user services Delegate=cpu memory pids in a drop-in of user@.service)"
	}
	return s
}

func detail(places []place) string {
	var parts, v1 []string
	for _, p := range places {
		if p.version == 1 {
			for _, c := range p.controllers {
				if c != cpuacct {
					v1 = append(v1, c)
				}
			}
		}
	}
	if len(v1) > 0 {
		slices.SortFunc(v1, func(a, b string) int { return slices.Index(wanted(), a) - slices.Index(wanted(), b) })
		parts = append(parts, "v1: "+strings.Join(v1, ", "))
	}
	for _, p := range places {
		if p.version != 2 {
			continue
		}
		has := append(slices.Clone(p.controllers), "kill")
		part := "v2: " + strings.Join(has, ", ")
		if p.leaf {
			part += " (delegated)"
		}
		parts = append(parts, part)
	}
	return strings.Join(parts, "; ")
}
