// Package attack holds executable attacks on a sandbox. Each row is tried twice:
// in a tier of a real sandbox, where it must fail, and outside of it (its
// control), where it must succeed: an attack that fails everywhere proves nothing.
//
// The rows run in a program of their own, package attacker, never in the process
// that judges them: some would end it, and a sandbox needs a program without cgo.
package attack

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
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
	// StoppedBy names what must stop it: a layer of [Stops] or "layer:rule" where it
	// has rules. Of several each alone would do; what is joined by a "+" does so only
	// together.
	StoppedBy []string
	Control   Control
	// Attack returns nil if it succeeded, that is, if the sandbox has a hole. It
	// is run in a process of its own and need not clean up after itself.
	Attack func(*Target) error

	outside    string   // id of the row that is its control, if it is not its own
	toolOnly   bool     // there is no such row of the worker tier
	toolsAlone []string // of StoppedBy: what only the tool tier has
}

// Rows is the table.
func Rows() []Row {
	rows := slices.Concat(networkRows(), familyRows(), processRows(), procRows(), fileRows(), homeRows(),
		hostRows(), kernelRows(), namespaceRows(), resourceRows(), terminalRows(), settingRows())
	for _, r := range rows {
		if r, ok := ofWorker(r); ok {
			rows = append(rows, r)
		}
	}
	return append(rows, workerSettingRows()...)
}

// ofWorker makes of a tool row one of the worker tier: of all but those that attack
// the worker itself, or another run, or what only the tools lack.
func ofWorker(r Row) (Row, bool) {
	switch r.Group {
	case groupNetwork, groupKernel, groupFiles, groupHost, groupResources:
	default:
		return r, false
	}
	if r.toolOnly {
		return r, false
	}
	r.ID, r.Tier, r.outside = "worker-"+r.ID, Worker, r.ID
	r.StoppedBy = slices.DeleteFunc(slices.Clone(r.StoppedBy), func(by string) bool { return slices.Contains(r.toolsAlone, by) })
	return r, true
}

// onProcess reports whether a row goes for another process.
func (r *Row) onProcess() bool {
	switch r.Group {
	case groupSecrets, groupProcesses, groupHost, groupFiles:
		return true
	}
	return false
}

// Outside names the row to run for a control: outside of a sandbox there is one tier.
func (r *Row) Outside() string { return cmp.Or(r.outside, r.ID) }

// Find returns the rows with these ids, in their order.
func Find(ids []string) ([]Row, error) {
	all := make(map[string]Row)
	for _, r := range Rows() {
		all[r.ID] = r
	}
	rows := make([]Row, 0, len(ids))
	for _, id := range ids {
		r, ok := all[id]
		if !ok {
			return nil, fmt.Errorf("no attack %q", id)
		}
		rows = append(rows, r)
	}
	return rows, nil
}

// The groups.
const (
	groupNetwork   = "network"
	groupProcesses = "processes"
	groupSecrets   = "secrets"
	groupFiles     = "files"
	groupHost      = "host"
	groupKernel    = "kernel surface"
	groupResources = "resources"
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
	var err error
	if t.PID == 0 && r.onProcess() {
		err = t.startVictim()
	}
	if err == nil {
		err = r.Attack(t)
	}
	if err == nil {
		return Result{ID: r.ID, Succeeded: true}
	}
	return Result{ID: r.ID, Error: strings.ReplaceAll(err.Error(), "\n", "; "), Absent: isAbsent(err)}
}

// errStopped is what an attack reports whose failure has no error of its own.
var errStopped = errors.New("nothing gained")
