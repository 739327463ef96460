// Command demo shows what a run with a model looks like, without an account: it
// starts a model that follows a script, and `carrel serve` against it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"carrel/internal/anthropictest"
)

// demoKey is what the daemon is given as the key: the scripted model takes no
// other, so an answer shows that the broker has put it in.
const demoKey = "sk-ant-demo"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// run serves until ctx ends or the daemon does. args are those of `carrel serve`.
func run(ctx context.Context, args []string, out io.Writer) error {
	model, err := anthropictest.Start(
		anthropictest.Options{Otherwise: answer, Key: demoKey},
		func(format string, args ...any) { fmt.Fprintf(out, format+"\n", args...) },
	)
	if err != nil {
		return err
	}
	defer model.Close()
	dir, err := os.MkdirTemp("", "carrel-demo-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()

	//nolint:gosec // the arguments are those of whoever calls the demo
	daemon := exec.CommandContext(ctx, "bin/carrel", append([]string{"serve"}, args...)...)
	daemon.Env = append(os.Environ(),
		"SANDBOX_BASE_DIR="+dir, "SANDBOX_AGENT=claude", "ANTHROPIC_API_KEY="+demoKey, "ANTHROPIC_BASE_URL="+model.URL)
	daemon.Stdout, daemon.Stderr = out, os.Stderr
	daemon.Cancel = func() error { return daemon.Process.Signal(syscall.SIGTERM) } // it ends its workers, then itself
	daemon.WaitDelay = time.Minute
	if err := daemon.Start(); err != nil {
		return fmt.Errorf("%w (make build first)", err)
	}
	fmt.Fprint(out, howTo)
	if err := daemon.Wait(); ctx.Err() == nil {
		return errors.Join(errors.New("the daemon ended"), err)
	}
	return nil
}

const howTo = `
A model that follows a script is there, and carrel serve against it. Ask, once it is ready:

  curl -N http://127.0.0.1:8642/v1/execute -H 'Accept: text/event-stream' -H 'Content-Type: application/json' \
       -d '{"user_id":"ada","session_id":"demo","message":"What is in my workspace?"}'

Ask again in the same session, or as another user: each has a sandbox of their own.
Ctrl-C ends both.

`

// answer plays the model: to a question it looks around, and then says what it saw.
func answer(q *anthropictest.Request) anthropictest.Reply {
	const pace = 40 * time.Millisecond // about that of a real one
	slow := anthropictest.Fault{Gap: pace}
	if results := q.Last().Results(); len(results) > 0 {
		text := "I looked. This is what the tools gave:\n\n" + results[0].ResultText() + "\n\nI am only a script, so that is all I make of it."
		return anthropictest.Reply{Blocks: []anthropictest.Block{anthropictest.Text(words(text)...)}, Fault: slow}
	}
	n := len(q.Messages)
	return anthropictest.Reply{
		Blocks: []anthropictest.Block{
			anthropictest.Thinking("demo", words("The user asks: "+q.Last().Text()+" I had better look.")...),
			anthropictest.Text(words("Let me look around, and leave a note.")...),
			anthropictest.ToolUse(fmt.Sprint("toolu_demo_", n), "bash", `{"command":"date | tee -a notes.txt; `, `pwd; ls -l; id -un"}`),
		},
		Fault: slow,
	}
}

// words cuts a text after its spaces, as it would be streamed.
func words(text string) []string { return strings.SplitAfter(text, " ") }
