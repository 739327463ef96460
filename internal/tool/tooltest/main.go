// Command tooltest stands in carrel-worker's place in the tests of package tool:
// in a sandbox, where a worker would run agents, it carries out calls of the tools
// that it reads as JSON lines, and writes what they give.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"

	"carrel/internal/jail"
	"carrel/internal/reap"
	"carrel/internal/tool"
)

// Order is a line of the input.
type Order struct {
	ID   string
	Call tool.Call
	// NewRun closes the tools first, as at a run's end, and starts over where the
	// last run was. Cancel ends the context of the call with this ID.
	NewRun bool
	Cancel string
	// Resolve asks where a path leads.
	Resolve string
}

// Answer is a line of the output: a piece of a call's output, or its result.
type Answer struct {
	ID     string
	Stream tool.Stream
	Text   string
	Result *tool.Result
	Dir    string
}

// init, and not main: as in carrel-worker, and for its reasons.
func init() { runtime.LockOSThread() }

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "tooltest:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return errors.New("started by tests")
	}
	switch args[0] {
	case jail.ModeSpawner:
		return jail.ServeSpawner(os.NewFile(3, "line"))
	case tool.ModeHost:
		return tool.ServeHost(os.NewFile(3, "line"))
	case jail.ModeInit:
		e, err := jail.Enter()
		if err != nil {
			return err
		}
		w := &worker{
			hosts: tool.NewHosts(reap.New(), e.Limits, e.Missing), env: e.Env,
			out: json.NewEncoder(e.Out), cancels: make(map[string]context.CancelFunc),
		}
		return w.serve(ctx, e.In)
	}
	return fmt.Errorf("unknown mode %q", args[0])
}

type worker struct {
	hosts *tool.Hosts
	env   []string
	set   *tool.Set

	mu      sync.Mutex
	out     *json.Encoder
	cancels map[string]context.CancelFunc
}

func (w *worker) serve(ctx context.Context, in io.Reader) error {
	w.set = tool.NewSet(tool.SetOptions{Hosts: w.hosts, Env: w.env})
	var calls sync.WaitGroup
	for lines := json.NewDecoder(in); ; {
		var o Order
		if err := lines.Decode(&o); err != nil {
			calls.Wait()
			return w.set.Close(ctx)
		}
		switch {
		case o.NewRun:
			calls.Wait()
			if err := w.set.Close(ctx); err != nil {
				return err
			}
			w.set = tool.NewSet(tool.SetOptions{Hosts: w.hosts, Env: w.env, Dir: w.set.Dir()})
			w.answer(Answer{ID: o.ID, Dir: w.set.Dir()})
		case o.Resolve != "":
			path, err := w.set.Resolve(ctx, o.Resolve)
			w.answer(Answer{ID: o.ID, Dir: path, Text: fmt.Sprint(err)})
		case o.Cancel != "":
			w.mu.Lock()
			w.cancels[o.Cancel]()
			w.mu.Unlock()
		default:
			ctx, cancel := context.WithCancel(ctx)
			w.mu.Lock()
			w.cancels[o.ID] = cancel
			w.mu.Unlock()
			set := w.set
			calls.Go(func() {
				r := set.Call(ctx, o.Call, func(s tool.Stream, text string) error {
					w.answer(Answer{ID: o.ID, Stream: s, Text: text})
					return nil
				})
				w.answer(Answer{ID: o.ID, Result: &r, Dir: set.Dir()})
			})
		}
	}
}

func (w *worker) answer(a Answer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	_ = w.out.Encode(a) // nobody left to tell
}
