package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/mattn/go-isatty"

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
	return errors.Join(r.follow(ctx, b, out.harmless()), b.Shutdown(ctx))
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
	ask := r.questions(b, out)
	if ask.terminal != nil {
		go ask.serve(ctx, run.RunID)
	}
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
		if ev.Type == protocol.EventApprovalRequested {
			if err := ask.ask(ctx, ev); err != nil {
				return err
			}
		}
		if ev.Type.Ends() {
			return r.outcome(out, ev)
		}
	}
	return errors.New("the events of the run ended without its end")
}

// questions says who is asked for approval.
func (r *runCmd) questions(b backend, out *output) *questions {
	q := &questions{b: b, out: out, isDaemon: r.URL != "", asked: make(chan protocol.ApprovalRequested, 1)}
	if !r.JSON && isatty.IsTerminal(os.Stdin.Fd()) {
		q.terminal = os.Stdin
	}
	return q
}

func printJSON(out *output, ev protocol.Event) error {
	return json.NewEncoder(out.stdout).Encode(ev)
}

// printEvent shows what a person wants to see of an event: the text, and a line for
// each tool.
func printEvent(out *output, ev protocol.Event) error {
	var told struct {
		protocol.TextDelta

		Name     string `json:"name"`
		Result   string `json:"result"`
		IsError  bool   `json:"is_error"`
		Decision string `json:"decision"`
		Reason   string `json:"reason"`
		Content  string `json:"content"`
		ExitCode *int   `json:"exit_code"`
	}
	switch ev.Type {
	case protocol.EventTextDelta, protocol.EventToolCallResult, protocol.EventApprovalResolved, protocol.EventRunFinished:
		if err := json.Unmarshal(ev.Data, &told); err != nil {
			return fmt.Errorf("decode %s: %w", ev.Type, err)
		}
	default:
		return nil
	}
	to, text := out.stderr, told.Text
	switch {
	case ev.Type == protocol.EventRunFinished:
		// A script's output is what it is; a model's last line wants an end.
		if told.ExitCode == nil && told.Content != "" && !strings.HasSuffix(told.Content, "\n") {
			to, text = out.stdout, "\n"
		}
	case ev.Type == protocol.EventToolCallResult:
		text = fmt.Sprintf("\n[%s: %s]\n", oneLine(told.Name), firstLine(told.Result, told.IsError))
	case ev.Type == protocol.EventApprovalResolved:
		text = fmt.Sprintf("\n[%s] %s\n", oneLine(told.Decision), printable(told.Reason))
	case told.Stream != "stderr":
		to = out.stdout
	}
	_, err := io.WriteString(to, text)
	return err
}

// firstLine folds a tool's result.
func firstLine(result string, isError bool) string {
	const width = 100
	line, _, more := strings.Cut(printable(strings.TrimSpace(result)), "\n")
	if len(line) > width {
		line, more = cut(line, width), true
	}
	if more {
		line += " …"
	}
	if isError {
		return "error: " + line
	}
	return line
}

// printDenials says, after a command's own output, what of the sandbox was in its way.
func printDenials(out *output, denials []protocol.Denial) {
	for _, d := range denials {
		_, _ = io.WriteString(out.stderr, oneLine(d.Text)+"\n")
	}
}

// outcome turns a run's last event into carrel's own end.
func (r *runCmd) outcome(out *output, ev protocol.Event) error {
	if ev.Type == protocol.EventRunError {
		var e protocol.RunError
		if err := json.Unmarshal(ev.Data, &e); err != nil {
			return fmt.Errorf("decode %s: %w", ev.Type, err)
		}
		return &protocol.Error{Code: e.Code, Message: printable(e.Message)}
	}
	var result protocol.Result
	if err := json.Unmarshal(ev.Data, &result); err != nil {
		return fmt.Errorf("decode %s: %w", ev.Type, err)
	}
	if !r.JSON {
		printDenials(out, result.Denials)
	}
	if result.ExitCode != nil && *result.ExitCode != 0 {
		return exitError(*result.ExitCode)
	}
	return nil
}
