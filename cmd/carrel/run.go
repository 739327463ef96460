package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"carrel/protocol"
)

type runCmd struct {
	target

	Session string `help:"Session to go on with; a new one if left out." placeholder:"ID"`
	Agent   string `help:"Which agent." placeholder:"NAME"`
	JSON    bool   `help:"Print the events, one a line."`
	Message string `arg:"" help:"The message; for the shell agent, a script."`
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
	run, err := b.Execute(ctx, protocol.ExecuteRequest{
		UserID:    r.User,
		Message:   r.Message,
		SessionID: r.Session,
		Config:    protocol.RunConfig{Agent: r.Agent},
	})
	if err != nil {
		return err
	}
	// The first Ctrl-C cancels the run and shows its end, the second one leaves.
	ctx, leave := context.WithCancelCause(ctx)
	defer leave(nil)
	signals, stop := interrupted()
	defer stop()
	go func() {
		for n := 0; ; n++ {
			select {
			case <-ctx.Done():
				return
			case <-signals:
			}
			if n > 0 || b.Cancel(ctx, run.RunID) != nil {
				leave(exitError(130)) // 128 + SIGINT, as a shell has it
			}
		}
	}()
	show := printEvent
	if r.JSON {
		show = printJSON
	}
	for ev, err := range b.Events(ctx, run.RunID, 0) {
		if err != nil {
			if cause := context.Cause(ctx); cause != nil {
				return cause
			}
			return err
		}
		if err := show(out, ev); err != nil {
			return err
		}
		if ev.Type.Ends() {
			return outcome(ev)
		}
	}
	return errors.New("the events of the run ended without its end")
}

func printJSON(out *output, ev protocol.Event) error {
	return json.NewEncoder(out.stdout).Encode(ev)
}

// printEvent shows what a person wants to see of an event.
func printEvent(out *output, ev protocol.Event) error {
	if ev.Type != protocol.EventTextDelta {
		return nil
	}
	var delta protocol.TextDelta
	if err := json.Unmarshal(ev.Data, &delta); err != nil {
		return fmt.Errorf("decode %s: %w", ev.Type, err)
	}
	to := out.stdout
	if delta.Stream == "stderr" {
		to = out.stderr
	}
	_, err := io.WriteString(to, delta.Text)
	return err
}

// outcome turns a run's last event into carrel's own end.
func outcome(ev protocol.Event) error {
	if ev.Type == protocol.EventRunError {
		var e protocol.RunError
		if err := json.Unmarshal(ev.Data, &e); err != nil {
			return fmt.Errorf("decode %s: %w", ev.Type, err)
		}
		return &protocol.Error{Code: e.Code, Message: e.Message}
	}
	var result protocol.Result
	if err := json.Unmarshal(ev.Data, &result); err != nil {
		return fmt.Errorf("decode %s: %w", ev.Type, err)
	}
	if result.ExitCode != nil && *result.ExitCode != 0 {
		return exitError(*result.ExitCode)
	}
	return nil
}
