// Command carrel gives every user of a product a sandboxed worker process in
// which that user's agent runs.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"syscall"

	"github.com/alecthomas/kong"

	"carrel"
	"carrel/internal/jail/attack"
)

// Set by -ldflags (see the Makefile).
var (
	version = "dev"
	commit  = "unknown"
)

// cli is the command line.
type cli struct {
	Config string            `env:"CARREL_CONFIG" help:"File of KEY=value lines, under the environment." placeholder:"FILE" type:"path"`
	Set    map[string]string `help:"Set a configuration key, over the environment: --set SANDBOX_MAX_WORKERS=20." mapsep:"none" placeholder:"KEY=VALUE"`

	Serve   serveCmd   `cmd:"" help:"Run the daemon: HTTP API, orchestrator, worker pool."`
	Run     runCmd     `cmd:"" help:"Work on one message, in this process or by a daemon (--url)."`
	Exec    execCmd    `cmd:"" help:"Run one command in a user's sandbox; its exit status becomes carrel's."`
	Key     keyCmd     `cmd:"" help:"Make, list and take away API keys."`
	Files   filesCmd   `cmd:"" help:"List, get, put and remove files of a user's workspace."`
	Ps      psCmd      `cmd:"" help:"Show the live sandboxes of a daemon."`
	Logs    logsCmd    `cmd:"" help:"Show the events of a daemon's run, or list the newest runs."`
	Doctor  doctorCmd  `cmd:"" help:"Show what isolation this host really gives."`
	Version versionCmd `cmd:"" help:"Show the version."`

	Help       helpCmd       `cmd:"" help:"Show the help of a command."`
	Completion completionCmd `cmd:"" help:"Print what a shell completes this command line by."`
	Complete   completeCmd   `cmd:"" help:"Tell a shell how a command line goes on." hidden:""`
	Man        manCmd        `cmd:"" help:"Print the man page."`
}

// loadConfig reads the configuration. defaults stand under all else: the keys
// whose default hangs on the command.
func (c *cli) loadConfig(overrides map[string]string) (carrel.Config, error) {
	all := make(map[string]string, len(overrides)+len(c.Set))
	for _, m := range []map[string]string{c.Set, overrides} {
		maps.Copy(all, m)
	}
	return carrel.LoadConfig(carrel.ConfigSource{Environ: os.Environ(), File: c.Config, Overrides: all})
}

// exitError ends the program with a status of its own, without a message.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

func main() { os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr)) }

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if attack.IsMode(args) {
		return beAttacker(args, stderr)
	}
	var c cli
	status := -1
	out := &output{stdout: stdout, stderr: stderr}
	parser, err := newParser(&c, out, localUser(), func(code int) { status = code })
	if err != nil {
		fmt.Fprintln(stderr, "carrel:", err)
		return 1
	}
	k, err := parser.Parse(args)
	if status >= 0 {
		return status // --help has been answered
	}
	if err != nil {
		parser.FatalIfErrorf(err)
		return 2
	}
	k.BindTo(ctx, (*context.Context)(nil))
	err = k.Run(&c, out)
	if code, ok := errors.AsType[exitError](err); ok {
		return int(code)
	}
	if err != nil {
		fmt.Fprintln(harmless(stderr), "carrel:", err) // it may hold a worker's words
		return 1
	}
	return 0
}

// newParser makes the parser of c. user is whose sandbox a command line uses if it names
// none; exit is told the status when the parser itself has answered.
func newParser(c *cli, out *output, user string, exit func(status int)) (*kong.Kong, error) {
	return kong.New(c,
		kong.Name("carrel"),
		kong.Description("A sandboxed worker process for every user's agent."),
		kong.Writers(out.stdout, out.stderr),
		kong.Exit(exit),
		kong.UsageOnError(),
		kong.Vars{"user": user},
	)
}

// localUser is whose sandbox a command line uses if it names none.
func localUser() string {
	if name := os.Getenv("USER"); name != "" {
		return name
	}
	return "local"
}

type output struct{ stdout, stderr io.Writer }

type helpCmd struct {
	Command []string `arg:"" help:"Left out, that of carrel itself." optional:""`
}

// Run answers as --help does.
func (h *helpCmd) Run(k *kong.Context, out *output) error {
	about, err := kong.Trace(k.Kong, h.Command)
	if err == nil {
		err = about.Error
	}
	if err != nil {
		fmt.Fprintln(harmless(out.stderr), "carrel: help:", err)
		return exitError(2)
	}
	return about.PrintUsage(false)
}

type versionCmd struct{}

func (versionCmd) Run(out *output) error {
	_, err := fmt.Fprintf(out.stdout, "carrel %s (%s, %s)\n", version, commit, runtime.Version())
	return err
}

// interruptible gives a context that the first interrupt ends, with the status that a
// shell gives a command ended so; a second one leaves. Each calls its function as well.
// stop lets go of both.
func interruptible(ctx context.Context, first, last func()) (call context.Context, stop func()) {
	call, cancel := context.WithCancelCause(ctx)
	stopSignals := onInterrupt(func(sig os.Signal) {
		cancel(statusOf(sig))
		first()
	}, last)
	return call, func() {
		stopSignals()
		cancel(nil)
	}
}

// onInterrupt calls first at the first interrupt. At the second it calls last, which must
// not wait, and ends the program there and then: whatever it waits for may never come.
// That leaves nothing behind which kill -9 would not: each sandbox dies with carrel. stop
// lets go of the signals, and waits for first.
func onInterrupt(first func(os.Signal), last func()) (stop func()) {
	signals, stopSignals := interrupted()
	done := make(chan struct{})
	var parts sync.WaitGroup
	parts.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-done:
				return
			case sig := <-signals:
				if n == 0 {
					parts.Go(func() { first(sig) })
					continue
				}
				last()
				os.Exit(int(statusOf(sig)))
			}
		}
	})
	return func() {
		stopSignals()
		close(done)
		parts.Wait()
	}
}

// statusOf is the exit status that a shell gives a command which a signal has ended.
func statusOf(sig os.Signal) exitError {
	number, _ := sig.(syscall.Signal)
	return exitError(128 + int(number))
}

// interrupted gives a channel of the signals that ask a program to end.
func interrupted() (<-chan os.Signal, func()) {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	return signals, func() { signal.Stop(signals) }
}
