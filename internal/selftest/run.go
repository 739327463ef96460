package selftest

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"slices"

	"carrel/internal/jail"
	"carrel/internal/jail/attack"
	"carrel/protocol"
)

// Options says what to attack and with what.
type Options struct {
	Worker string // carrel-worker
	// Attacker is a program that is an attacker when told to ([attack.Main]), built
	// without cgo.
	Attacker string
	// Daemon is carrel, for [Exchanges].
	Daemon string
	// Without are the layers of the jail that this host cannot give and that the
	// operator's configuration allows to be missing.
	Without []string
	// Rows are the rows to try.
	Rows []attack.Row
	// Ways are how sandboxes come to be; nil = all that there are for this user.
	Ways []Way
	// Log takes what the workers that are attacked say on stderr; nil = nobody does.
	// It is no terminal's: a worker whose line is cut says so, and that is no finding.
	Log *os.File
	// Progress, if set, is told of each row that was tried, of all that will be.
	Progress func(tried, all int)
}

// Without are the layers that sandboxes of a host with this report are started without:
// none, where it is strict.
func Without(isolation protocol.IsolationReport) []string {
	if isolation.Mode == "strict" {
		return nil
	}
	return jail.Without(isolation)
}

// Way is how a sandbox comes to be: for its user from the first, or warm, which only
// as root makes a difference (jail.IDMap).
type Way string

// The ways.
const (
	Cold Way = "cold"
	Warm Way = "warm"
)

// Ways are those that differ for this process's user.
func Ways() []Way {
	if os.Geteuid() != 0 {
		return []Way{Cold}
	}
	return []Way{Cold, Warm}
}

// Run tries every row and gives a verdict for each. The error is that of a self-test
// that could not be carried out, never that of a row.
func Run(ctx context.Context, o Options) ([]Verdict, error) {
	if o.Ways == nil {
		o.Ways = Ways()
	}
	if len(o.Rows) == 0 {
		return nil, nil
	}
	s := newSession(o)
	outside, err := s.controls(ctx, attack.ModeControl)
	if err != nil {
		return nil, fmt.Errorf("controls outside of a sandbox: %w", err)
	}
	for _, way := range o.Ways {
		if err := s.attackTools(ctx, way); err != nil {
			return nil, fmt.Errorf("attack a %s sandbox from the tool tier: %w", way, err)
		}
		if err := s.attackWorker(ctx, way); err != nil {
			return nil, fmt.Errorf("attack a %s sandbox from the worker tier: %w", way, err)
		}
	}
	verdicts := make([]Verdict, 0, len(o.Rows))
	for _, r := range o.Rows {
		verdicts = append(verdicts, judge(r, outside[r.ID], s.results[r.ID], o.lost()))
	}
	return verdicts, nil
}

// session is one self-test.
type session struct {
	Options
	secret string // what rows look for
	tried  int
	// results are those inside, by row; nil = left none. Of several ways the one
	// that broke counts.
	results map[string]*attack.Result
}

func newSession(o Options) *session {
	return &session{Options: o, secret: rand.Text() + rand.Text(), results: make(map[string]*attack.Result)}
}

func (s *session) of(tier attack.Tier) []attack.Row {
	return slices.DeleteFunc(slices.Clone(s.Rows), func(r attack.Row) bool { return r.Tier != tier })
}

// keep takes a row's result in one way.
func (s *session) keep(id string, got *attack.Result) {
	old, known := s.results[id]
	if !known || old != nil && !old.Succeeded {
		s.results[id] = got
	}
	s.step()
}

func (s *session) step() {
	s.tried++
	if s.Progress != nil {
		s.Progress(s.tried, len(s.Rows)*len(s.Ways))
	}
}
