package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"carrel/internal/agent"
	"carrel/internal/jail"
	"carrel/internal/tool"
)

// inheritedLine is where spawner and tool host find their line (os/exec's first
// ExtraFile).
const inheritedLine = 3

// Main is carrel-worker. args are its arguments without the program's name; it
// returns the exit status. It must be called from the main goroutine, which an init
// function has locked to the main thread. more are agents besides carrel's own, or in
// the place of one, by their names; nil = none.
func Main(ctx context.Context, args []string, more map[string]agent.Agent, stderr io.Writer) int {
	err := onMainThread()
	if err == nil {
		err = serve(ctx, args, more)
	}
	if err != nil {
		_, _ = fmt.Fprintf(stderr, "carrel-worker: %v\n", err)
		return 1
	}
	return 0
}

// onMainThread refuses to start where the main goroutine does not hold the main
// thread. Another goroutine that locks itself to a thread could then sit on the
// process leader, whose Landlock domain is what others' signals to this process are
// judged by (trap 3): a tool could signal the worker.
func onMainThread() error {
	if unix.Gettid() != unix.Getpid() {
		return errors.New("the main goroutine is not on the main thread")
	}
	return nil
}

func serve(ctx context.Context, args []string, more map[string]agent.Agent) error {
	mode := ""
	if len(args) > 0 {
		mode = args[0]
	}
	switch mode {
	case jail.ModeSpawner:
		return jail.ServeSpawner(os.NewFile(inheritedLine, "line"))
	case jail.ModeInit:
		entered, err := jail.Enter()
		if err != nil {
			return err
		}
		return Run(ctx, entered, more)
	case jail.ModeNamespace:
		return jail.Hold()
	case tool.ModeHost:
		return tool.ServeHost(os.NewFile(inheritedLine, "line"))
	case "":
		return byHand(ctx)
	}
	return fmt.Errorf("unknown mode %q: this program is started by carrel; without arguments it speaks JSON-RPC "+
		"from a throw-away sandbox", mode)
}
