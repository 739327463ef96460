package selftest

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"carrel/internal/jail/attack"
)

// exchanges is the table of attacks on the daemon itself.
func exchanges() []exchange { return append(protocolExchanges(), apiExchanges()...) }

// All tries the whole table, or of it the rows with these ids: those in a sandbox, and
// then those that put a daemon under attack. o.Rows is not looked at.
func All(ctx context.Context, o Options, only []string) ([]Verdict, error) {
	for _, id := range only {
		if !slices.ContainsFunc(Table(), func(e Entry) bool { return e.ID == id }) {
			return nil, fmt.Errorf("there is no row %q; docs/attacks.md has the table", id)
		}
	}
	isLeftOut := func(id string) bool { return len(only) > 0 && !slices.Contains(only, id) }
	o.Rows = slices.DeleteFunc(attack.Rows(), func(r attack.Row) bool { return isLeftOut(r.ID) })
	verdicts, err := Run(ctx, o)
	if err != nil {
		return nil, err
	}
	rest := slices.DeleteFunc(exchanges(), func(x exchange) bool { return isLeftOut(x.id) })
	more, err := exchangeAll(ctx, o, rest)
	return append(verdicts, more...), err
}

// Exchanges puts a throw-away daemon under attack, from a worker that was taken over
// and by callers of its API, and gives a verdict for each row. o.Daemon is what it
// starts. Without says what its host cannot give.
func Exchanges(ctx context.Context, o Options) ([]Verdict, error) {
	return exchangeAll(ctx, o, exchanges())
}

func exchangeAll(ctx context.Context, o Options, rows []exchange) (_ []Verdict, err error) {
	if len(rows) == 0 {
		return nil, nil
	}
	s := &session{Options: o}
	d, err := s.serve(ctx)
	if err != nil {
		return nil, fmt.Errorf("start a daemon to attack: %w", err)
	}
	defer func() { err = errors.Join(err, d.end()) }()
	if err := d.furnish(ctx); err != nil {
		return nil, fmt.Errorf("give the daemon something to attack: %w", err)
	}
	verdicts := make([]Verdict, 0, len(rows))
	for i, x := range rows {
		v := x.try(ctx, d)
		verdicts = append(verdicts, v)
		if o.Progress != nil {
			o.Progress(i+1, len(rows))
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	return verdicts, nil
}

func (x *exchange) try(ctx context.Context, d *daemon) Verdict {
	v := Verdict{
		ID: x.id, Group: x.group, Tier: x.tier, Title: x.title, StoppedBy: x.stoppedBy,
		Result: NotApplicable, Control: controlFailed,
	}
	// The attack first: what the control does may be what it is after.
	failed := x.attack(ctx, d)
	if err := x.control(ctx, d); err == nil {
		v.Control = controlSucceeded
	} else {
		v.Detail, v.Unproven = "the control failed as well: "+err.Error(), true
	}
	switch {
	case failed == nil:
		v.Result, v.Detail = Broken, "succeeded"
	case !v.Unproven:
		v.Result, v.Detail = Held, failed.Error()
	}
	return v
}
