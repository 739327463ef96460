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
	return errors.Join(e.run(ctx, b, out.harmless(), req), b.Shutdown(ctx))
}

func (e *execCmd) run(ctx context.Context, b backend, out *output, req protocol.ExecRequest) error {
	ctx, stop := interruptible(ctx)
	defer stop()
	result, err := b.Exec(ctx, e.User, req, func(t protocol.EventType, o protocol.ExecOutput) error {
		to := out.stdout
		if t == protocol.ExecStderr {
			to = out.stderr
		}
		_, err := io.WriteString(to, o.Text)
		return err
	})
	if err != nil {
		return err
	}
	printDenials(out, result.Denials)
	if result.ExitCode != 0 {
		return exitError(result.ExitCode)
	}
	return nil
}
