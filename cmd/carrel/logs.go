package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"carrel/client"
	"carrel/protocol"
)

type logsCmd struct {
	address
	view

	Follow bool   `help:"Go on with a run that is still going until it ends." short:"f"`
	After  int64  `default:"0" help:"Only the events after the one with this number." placeholder:"SEQ"`
	User   string `help:"Without RUN: only this user's runs." placeholder:"ID"`
	Limit  int    `default:"20" help:"Without RUN: so many runs at most (200 is the most)." placeholder:"N"`
	RunID  string `arg:"" help:"The run; left out, the newest runs are listed." name:"run" optional:""`
}

// Help says what `carrel logs --help` and the man page add.
func (logsCmd) Help() string {
	return "Of a run that has ended, the exit status is what carrel run would have given. " +
		"An interrupt (Ctrl-C) ends the reading, not the run."
}

// Validate is asked by kong.
func (l *logsCmd) Validate() error {
	switch {
	case l.After < 0:
		return errors.New("--after: must not be negative")
	case l.Limit < 1 || l.Limit > 200:
		return errors.New("--limit: must be 1 to 200")
	case l.Follow && l.RunID == "":
		return errors.New("--follow: which run? carrel logs lists the newest ones")
	}
	return nil
}

// Run shows a run's events, or lists the newest runs.
func (l *logsCmd) Run(ctx context.Context, out *output) error {
	c, err := l.open()
	if err != nil {
		return err
	}
	defer c.Close()
	if l.RunID == "" {
		return l.explain(l.list(ctx, c, out.harmless()))
	}
	return l.explain(l.follow(ctx, c, out))
}

func (l *logsCmd) list(ctx context.Context, c *client.Client, out *output) error {
	page, err := c.RunPage(ctx, protocol.RunQuery{UserID: l.User, Limit: l.Limit})
	if err != nil {
		return err
	}
	if !l.JSON {
		return printRuns(out.stdout, page.Runs, time.Now())
	}
	encoder := json.NewEncoder(out.stdout)
	for _, run := range page.Runs {
		if err := encoder.Encode(run); err != nil {
			return err
		}
	}
	return nil
}

// follow shows what there is of a run, and with --follow what comes.
func (l *logsCmd) follow(ctx context.Context, c *client.Client, out *output) error {
	screen := newScreen(out, l.JSON)
	defer screen.close()
	ctx, stop := interruptible(ctx, func() {}, screen.leave)
	defer stop()
	err := l.show(ctx, c, screen, out.harmless())
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return cause
	}
	return err
}

func (l *logsCmd) show(ctx context.Context, c *client.Client, screen *screen, out *output) error {
	run, err := c.Run(ctx, l.RunID) // it also tells whether there is a daemon, at once
	if err != nil {
		return err
	}
	if l.Follow {
		screen.set("waiting for the run")
	}
	show, ask := l.shower(screen), &questions{screen: screen, isDaemon: true}
	last := l.After
	if l.Follow || last < run.LastSeq {
		for ev, err := range c.Events(ctx, run.RunID, l.After) {
			if err != nil {
				return err
			}
			if err := show(ev); err != nil {
				return err
			}
			if err := ask.take(ctx, ev); err != nil {
				return err
			}
			if ev.Type.Ends() {
				screen.close()
				return l.outcome(out, ev)
			}
			if last = ev.Seq; !l.Follow && last >= run.LastSeq {
				break
			}
		}
	}
	screen.close()
	if l.Follow { // it has ended before --after
		if run, err = c.Run(ctx, l.RunID); err != nil {
			return err
		}
	}
	if run.Status.Ended() {
		return l.end(out, run.Result, run.Error)
	}
	_, err = fmt.Fprintf(out.stderr, "carrel: the run is %s; --follow goes on with it\n", run.Status)
	return err
}
