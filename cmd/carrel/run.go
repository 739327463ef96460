package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/mattn/go-isatty"

	"carrel/protocol"
)

type runCmd struct {
	target
	view

	Session string `help:"Session to go on with; a new one if left out." placeholder:"ID"`
	Agent   string `help:"Which agent." placeholder:"NAME"`
	Message string `arg:"" help:"The message; for the shell agent, a script."`
}

// Help says what `carrel run --help` and the man page add.
func (runCmd) Help() string {
	return "The first interrupt (Ctrl-C) cancels the run and shows its end; a second one leaves at once. " +
		"The exit status is 0 if the run succeeded, a script's own if it failed, 130 if it was interrupted, else 1."
}

// Run prints the events of one run. It ends well only if the run did; a script's
// own status becomes carrel's.
func (r *runCmd) Run(ctx context.Context, c *cli, out *output) error {
	b, err := r.open(ctx, c)
	if err != nil {
		return err
	}
	return errors.Join(r.follow(ctx, b, out), b.Shutdown(ctx))
}

func (r *runCmd) follow(ctx context.Context, b backend, out *output) error {
	ctx, cancel := context.WithCancel(ctx)
	var parts sync.WaitGroup
	defer parts.Wait()
	defer cancel()
	screen := newScreen(out, r.JSON)
	defer screen.close()
	screen.set("starting")

	// Nobody knows the run's name yet; an interrupt waits for it.
	named := make(chan string, 1)
	interrupted := make(chan os.Signal, 1)
	stop := onInterrupt(func(sig os.Signal) {
		interrupted <- sig
		parts.Go(func() { r.cancel(ctx, b, named, screen) })
		screen.end("canceling the run; once more to leave")
	}, screen.leave)
	defer stop()

	run, err := b.Execute(ctx, protocol.ExecuteRequest{
		UserID:    r.User,
		Message:   r.Message,
		SessionID: r.Session,
		Config:    protocol.RunConfig{Agent: r.Agent},
	})
	if err != nil {
		return err
	}
	named <- run.RunID
	last, err := r.show(ctx, b, run.RunID, screen)
	if err != nil {
		return err
	}
	screen.close()
	err = r.outcome(out.harmless(), last)
	select {
	case sig := <-interrupted:
		if errors.Is(err, &protocol.Error{Code: protocol.CodeCanceled}) {
			_, _ = fmt.Fprintln(out.stderr, "carrel: the run was canceled")
			return statusOf(sig)
		}
	default:
	}
	return err
}

// cancel cancels the run as soon as it has a name. That it could not is shown at once:
// the run goes on, and whoever waits for its end may leave.
func (r *runCmd) cancel(ctx context.Context, b backend, named <-chan string, screen *screen) {
	select {
	case id := <-named:
		if err := b.Cancel(ctx, id); err != nil && ctx.Err() == nil {
			_ = screen.line(red, fmt.Sprintf("carrel: the run is not canceled: %v", err))
		}
	case <-ctx.Done():
	}
}

// show shows a run from its first event to its last one, which it returns.
func (r *runCmd) show(ctx context.Context, b backend, runID string, screen *screen) (last protocol.Event, err error) {
	ctx, cancel := context.WithCancel(ctx)
	var parts sync.WaitGroup
	defer parts.Wait()
	defer cancel()
	ask := r.questions(b, screen)
	if ask.terminal != nil {
		go ask.serve(ctx, runID)
	}
	waiting, begun := context.WithCancel(ctx)
	defer begun()
	if screen.isLive {
		parts.Go(func() { showQueue(waiting, b, runID, screen) })
	}
	show := r.shower(screen)
	for ev, err := range b.Events(ctx, runID, 0) {
		if err != nil {
			return ev, err
		}
		begun()
		if err := show(ev); err != nil {
			return ev, err
		}
		if err := ask.take(ctx, ev); err != nil {
			return ev, err
		}
		if ev.Type.Ends() {
			return ev, nil
		}
	}
	return last, errors.New("the events of the run ended without its end")
}

// queueTime is how often a waiting run is asked for its place.
const queueTime = time.Second

// showQueue says where in the queue a run stands until ctx ends.
func showQueue(ctx context.Context, b backend, runID string, screen *screen) {
	ticks := time.NewTicker(queueTime)
	defer ticks.Stop()
	for {
		run, err := b.Run(ctx, runID)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
		case run.QueuePlace > 0:
			screen.set(fmt.Sprintf("queued, place %d", run.QueuePlace))
		default:
			screen.set("starting a sandbox")
		}
		select {
		case <-ticks.C:
		case <-ctx.Done():
			return
		}
	}
}

// questions says who is asked for approval.
func (r *runCmd) questions(b backend, screen *screen) *questions {
	q := &questions{b: b, screen: screen, isDaemon: r.URL != "", asked: make(chan protocol.ApprovalRequested, 1)}
	if !r.JSON && isatty.IsTerminal(os.Stdin.Fd()) {
		q.terminal = os.Stdin
	}
	return q
}

// view is how a run is shown.
type view struct {
	JSON    bool `help:"Print the events, one a line."`
	Verbose bool `help:"Unfold the calls of tools: their input and result." short:"v"`
}

// shower gives what shows a run's events, one after the other.
func (v view) shower(screen *screen) func(protocol.Event) error {
	if v.JSON {
		encoder := json.NewEncoder(&screen.stdout)
		return func(ev protocol.Event) error { return encoder.Encode(ev) }
	}
	return (&teller{screen: screen, isVerbose: v.Verbose}).show
}

// printDenials says, after a command's own output, what of the sandbox was in its way.
func printDenials(out *output, denials []protocol.Denial) {
	for _, d := range denials {
		_, _ = io.WriteString(out.stderr, oneLine(d.Text)+"\n")
	}
}

// outcome turns a run's last event into carrel's own end.
func (v view) outcome(out *output, ev protocol.Event) error {
	if ev.Type == protocol.EventRunError {
		var e protocol.RunError
		if err := json.Unmarshal(ev.Data, &e); err != nil {
			return fmt.Errorf("decode %s: %w", ev.Type, err)
		}
		return v.end(out, nil, &e)
	}
	var result protocol.Result
	if err := json.Unmarshal(ev.Data, &result); err != nil {
		return fmt.Errorf("decode %s: %w", ev.Type, err)
	}
	return v.end(out, &result, nil)
}

// end turns what a run came to, one of the two at most, into carrel's own end.
func (v view) end(out *output, result *protocol.Result, e *protocol.RunError) error {
	if e != nil {
		return &protocol.Error{Code: e.Code, Message: printable(e.Message)}
	}
	if result == nil {
		return nil
	}
	if !v.JSON {
		printDenials(out, result.Denials)
	}
	if result.ExitCode != nil && *result.ExitCode != 0 {
		return exitError(*result.ExitCode)
	}
	return nil
}
