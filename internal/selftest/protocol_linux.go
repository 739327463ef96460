package selftest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"carrel/internal/jail/attack"
	"carrel/protocol"
)

// exchange is an attack on the daemon itself, over a stream or a port of it, and so
// one that no row of a process can be. Both of its halves talk to a throw-away daemon.
type exchange struct {
	id, group, title string
	tier             attack.Tier
	stoppedBy        []string
	attack           func(context.Context, *daemon) error // nil: it succeeded
	control          func(context.Context, *daemon) error // nil: the same, rightly used, works
}

const groupProtocol = "protocol"

// errNothing is what an attack comes to that has no error of its own.
var errNothing = errors.New("nothing gained")

// protocolExchanges are what a worker that was taken over tries over its own stream.
func protocolExchanges() []exchange {
	row := func(trick attack.Trick, title string, by ...string) exchange {
		return exchange{
			id: "protocol-" + string(trick), group: groupProtocol, tier: attack.Worker, title: title, stoppedBy: by,
			control: honestRun,
			attack:  func(ctx context.Context, d *daemon) error { return forge(ctx, d, trick, "") },
		}
	}
	rows := []exchange{
		row(attack.TrickBigLine, "send a line past the limit", "jsonrpc:line-limit"),
		row(attack.TrickNoUTF8, "send text that is no UTF-8", "jsonrpc:utf-8"),
		row(attack.TrickHalfLine, "send half an event and end", "jsonrpc:line"),
		row(attack.TrickNoJSON, "send what is no JSON", "jsonrpc:json"),
		row(attack.TrickDeep, "send a hundred thousand brackets", "jsonrpc:depth"),
		row(attack.TrickForeignID, "answer what nobody asked", "jsonrpc:id"),
		row(attack.TrickTwice, "answer twice, the second time otherwise", "jsonrpc:id"),
		row(attack.TrickNoEnd, "give a result without a last event", "pool:order"),
		row(attack.TrickGap, "leave an event out", "pool:seq"),
		row(attack.TrickAgain, "give an event twice", "pool:seq"),
		row(attack.TrickAfterEnd, "go on after the last event", "pool:order"),
		row(attack.TrickUnknownType, "break the frame by an event's type", "pool:type"),
		row(attack.TrickNoObject, "give an event data that is no object", "pool:data"),
		row(attack.TrickForgedAnswer, "tell of an approval that nobody gave", "orchestrator:approvals"),
	}
	another := func(trick attack.Trick, title string) exchange {
		x := row(trick, title, "pool:run")
		x.attack = func(ctx context.Context, d *daemon) error { return againstAnother(ctx, d, trick) }
		return x
	}
	return append(rows,
		another(attack.TrickOtherRun, "send an event of another user's run"),
		another(attack.TrickOtherAsk, "ask in the name of another user's run"),
		exchange{
			id: "protocol-forged-price", group: groupProtocol, tier: attack.Worker, title: "claim what a run has cost",
			stoppedBy: []string{"broker:meter"}, control: honestRun, attack: forgePrice,
		},
		lasting(attack.TrickSilence, "never answer", "orchestrator:timeout"),
		lasting(attack.TrickEndlessLine, "send a line that never ends", "jsonrpc:line-limit"),
		lasting(attack.TrickFlood, "send events without an end", "orchestrator:timeout"),
		lasting(attack.TrickUnread, "ask without an end and read no answer", "jsonrpc:queues"))
}

// honestRun is the control of all of them: the same worker, well behaved, is believed.
func honestRun(ctx context.Context, d *daemon) error {
	run, err := d.run(ctx, "honest", attack.TrickHonest, "")
	if err != nil {
		return err
	}
	if run.Result == nil || run.Result.Content != "honest" {
		return fmt.Errorf("an honest run came to %+v", run)
	}
	return nil
}

// forge succeeds if something forged is shown, or if the daemon is no use afterwards.
func forge(ctx context.Context, d *daemon, trick attack.Trick, about string) error {
	run, err := d.run(ctx, "hostile", trick, about)
	switch {
	case errors.Is(err, errForged):
		return nil
	case err != nil:
		return nil //nolint:nilerr // a daemon that cannot tell of the run any more is what a hostile worker wants
	case run.Result != nil && run.Result.Content == "forged":
		return nil
	}
	if honestRun(ctx, d) != nil {
		return nil
	}
	return told(run)
}

// told is what the daemon said of a run that came to nothing.
func told(run protocol.Run) error {
	if run.Error != nil {
		return fmt.Errorf("%w: %s", run.Error.Code, run.Error.Message)
	}
	return errNothing
}

// againstAnother names a run of somebody else's that is going.
func againstAnother(ctx context.Context, d *daemon, trick attack.Trick) error {
	victim, err := d.begin(ctx, "victim", attack.TrickSilence, "")
	if err != nil {
		return fmt.Errorf("no victim: %w", err)
	}
	outcome := forge(ctx, d, trick, victim.RunID)
	if outcome == nil {
		return nil
	}
	if _, err := d.ended(ctx, victim.RunID); errors.Is(err, errForged) {
		return nil
	}
	return outcome
}

func forgePrice(ctx context.Context, d *daemon) error {
	run, err := d.run(ctx, "hostile", attack.TrickForgedPrice, "")
	if err != nil {
		return err
	}
	if run.Result == nil {
		return told(run)
	}
	if run.Result.Usage.CostUSD == attack.ForgedCost {
		return nil
	}
	return errNothing
}

// lasting is a trick that goes on for as long as it is let. It succeeds if its run is
// not ended in time, if the daemon grows by more than one worker's queues may hold, or
// if others have to wait for it.
func lasting(trick attack.Trick, title string, by ...string) exchange {
	return exchange{
		id: "protocol-" + string(trick), group: groupProtocol, tier: attack.Worker, title: title, stoppedBy: by, control: honestRun,
		attack: func(ctx context.Context, d *daemon) error {
			before, err := d.residentBytes()
			if err != nil {
				return err
			}
			run, err := d.begin(ctx, "hostile", trick, "")
			if err != nil {
				return err
			}
			for range 3 {
				if honestRun(ctx, d) != nil {
					return nil
				}
			}
			after, err := d.residentBytes()
			if err != nil || after-before > growth {
				return nil //nolint:nilerr // a daemon that is gone is what it was about
			}
			ctx, cancel := context.WithTimeout(ctx, patience)
			defer cancel()
			for {
				if run, err = d.client.Run(ctx, run.RunID); err != nil {
					return nil //nolint:nilerr // as above
				}
				if run.Status.Ended() {
					return told(run)
				}
				if !pause(ctx, pollTime) {
					return nil
				}
			}
		},
	}
}

const (
	growth   = 128 << 20 // bytes of the daemon that one worker may cost: its queues of lines, and readers' buffers
	pollTime = 100 * time.Millisecond
)

// pause reports whether it was not cut short.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
