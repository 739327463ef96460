package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"carrel/protocol"
)

// maxStdin is how much of its standard input carrel exec passes on.
const maxStdin = 1 << 20

type execCmd struct {
	target

	Cwd     string   `help:"Working directory, below /workspace or absolute inside." placeholder:"DIR"`
	Stdin   bool     `short:"i" help:"Pass standard input on (1 MiB at most)."`
	Command []string `arg:"" passthrough:"" help:"The command and its arguments, after --."`
}

// Help says what `carrel exec --help` and the man page add.
func (execCmd) Help() string {
	return "The first interrupt (Ctrl-C) ends the command; a second one leaves at once. " +
		"The exit status is the command's, 130 if it was interrupted, else 1."
}

func (e *execCmd) Run(ctx context.Context, c *cli, out *output) error {
	req := protocol.ExecRequest{Command: protocol.Command{Args: e.Command}, Cwd: e.Cwd}
	if len(e.Command) > 0 && e.Command[0] == "--" {
		req.Command.Args = e.Command[1:]
	}
	if err := req.Command.Validate(); err != nil {
		return err
	}
	if e.Stdin {
		text, err := io.ReadAll(io.LimitReader(os.Stdin, maxStdin+1))
		if err != nil {
			return fmt.Errorf("read standard input: %w", err)
		}
		if len(text) > maxStdin {
			return errors.New("standard input: more than 1 MiB; put it into a file of the workspace")
		}
		req.Stdin = string(text)
	}
	b, err := e.open(ctx, c)
	if err != nil {
		return err
	}
	return errors.Join(e.run(ctx, b, out, req), b.Shutdown(ctx))
}

func (e *execCmd) run(ctx context.Context, b backend, out *output, req protocol.ExecRequest) error {
	screen := newScreen(out, false)
	defer screen.close()
	screen.set("starting")
	ctx, stop := interruptible(ctx, func() { screen.end("ending the command; once more to leave") }, screen.leave)
	defer stop()
	result, err := b.Exec(ctx, e.User, req, func(t protocol.EventType, o protocol.ExecOutput) error {
		screen.set("") // from here the terminal is the command's
		to := &screen.stdout
		if t == protocol.ExecStderr {
			to = &screen.stderr
		}
		_, err := io.WriteString(to, o.Text)
		return err
	})
	if cause := context.Cause(ctx); err != nil && cause != nil {
		return cause
	}
	if err != nil {
		return err
	}
	screen.close()
	printDenials(out.harmless(), result.Denials)
	if result.ExitCode != 0 {
		return exitError(result.ExitCode)
	}
	return nil
}
