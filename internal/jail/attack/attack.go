// Package attack holds executable attacks on a sandbox. Each row is tried twice:
// in a tier of a real sandbox, where it must fail, and outside of it (its
// control), where it must succeed: an attack that fails everywhere proves nothing.
//
// The rows run in a program of their own, package attacker, never in the process
// that judges them: some would end it, and a sandbox needs a program without cgo.
package attack

import (
	"errors"
	"fmt"
	"slices"
)

// Tier says from where a row attacks.
type Tier string

// The tiers. A tool row runs as a command of an agent would, a worker row in the
// very process that entered the jail, as if the agent loop had been taken over.
const (
	Tool   Tier = "tool"
	Worker Tier = "worker"
	// Caller is outside of every sandbox: who has the API's address, and a key or none.
	Caller Tier = "caller"
)

// Control says what a row's control needs to succeed.
type Control string

// The controls, from the least to the most privilege.
const (
	// Plain: an ordinary process outside the sandbox.
	Plain Control = "plain"
	// Fresh: a process with every capability in new namespaces, but without
	// filter and Landlock. An ordinary user can start one.
	Fresh Control = "fresh-namespaces"
	// Root: real root. As an ordinary user such a row is not applicable.
	Root Control = "root"
)

// Row is one attack.
type Row struct {
	ID    string // unique; a worker row's begins with "worker-"
	Group string
	Tier  Tier
	Title string
	// StoppedBy names what must stop it: a jail.Layer… or "layer:rule". Where
	// there are several, each alone would do.
	StoppedBy []string
	Control   Control
	// Attack returns nil if it succeeded, that is, if the sandbox has a hole. It
	// is run in a process of its own and need not clean up after itself.
	Attack func(*Target) error
}

// Rows is the table.
func Rows() []Row {
	rows := slices.Concat(networkRows(), processRows(), procRows(), fileRows(), kernelRows(), terminalRows(), settingRows())
	for _, r := range rows {
		if inBothTiers(r) {
			r.ID, r.Tier = "worker-"+r.ID, Worker
			rows = append(rows, r)
		}
	}
	return append(rows, workerSettingRows()...)
}

// inBothTiers reports whether a tool row stands for the worker tier as well: all
// that do not attack the worker itself or what only the tools lack.
func inBothTiers(r Row) bool {
	switch r.Group {
	case groupNetwork, groupKernel, groupFiles:
		return true
	}
	return false
}

// Find returns the row with this id.
func Find(id string) (Row, error) {
	rows := Rows()
	if i := slices.IndexFunc(rows, func(r Row) bool { return r.ID == id }); i >= 0 {
		return rows[i], nil
	}
	return Row{}, fmt.Errorf("no attack %q", id)
}

// RuleInotify is a limit of the sandbox's own, which jail sets in its /proc.
const RuleInotify = "sysctl:max_inotify_instances"

// The groups.
const (
	groupNetwork   = "network"
	groupProcesses = "processes"
	groupSecrets   = "secrets"
	groupFiles     = "files"
	groupKernel    = "kernel surface"
	groupABI       = "other call ABIs" // may end the process that tries them
	groupTerminal  = "terminal"
)

// Result is what the attacker prints for a row, one JSON object a line. A row
// that ended its process has none.
type Result struct {
	ID        string `json:"id"`
	Succeeded bool   `json:"succeeded"`
	Error     string `json:"error,omitempty"` // why it did not
	// Absent: this kernel has not got what the attack is about.
	Absent bool `json:"absent,omitempty"`
}

// Try runs a row in this process.
func Try(r Row, t *Target) Result {
	err := r.Attack(t)
	if err == nil {
		return Result{ID: r.ID, Succeeded: true}
	}
	return Result{ID: r.ID, Error: err.Error(), Absent: isAbsent(err)}
}

// errStopped is what an attack reports whose failure has no error of its own.
var errStopped = errors.New("nothing gained")
