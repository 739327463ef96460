package selftest

import (
	"carrel/internal/jail/attack"
)

// Entry is one row of the whole table, numbered from 1: those that attack a sandbox
// from inside, then those that attack a daemon.
type Entry struct {
	Number           int
	ID, Group, Title string
	Tier             attack.Tier
	StoppedBy        []string
}

// Table is all that a self-test tries.
func Table() []Entry {
	var all []Entry
	add := func(e Entry) {
		e.Number = len(all) + 1
		all = append(all, e)
	}
	for _, r := range attack.Rows() {
		add(Entry{ID: r.ID, Group: r.Group, Title: r.Title, Tier: r.Tier, StoppedBy: r.StoppedBy})
	}
	for _, x := range exchanges() {
		add(Entry{ID: x.id, Group: x.group, Title: x.title, Tier: x.tier, StoppedBy: x.stoppedBy})
	}
	return all
}
