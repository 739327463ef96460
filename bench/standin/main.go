// Command standin is the other end of a stream that is measured: as carrel's worker,
// with an agent that sends events as the message says, or (argument "plain") as a
// child without any isolation, which does the same over its pipes.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"time"

	"carrel/internal/agent"
	"carrel/internal/agent/shell"
	"carrel/internal/worker"
	"carrel/protocol"
)

// As in carrel-worker: the process leader is no other goroutine's thread.
func init() { runtime.LockOSThread() }

func main() {
	if len(os.Args) == 2 && os.Args[1] == "plain" {
		if err := plain(os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, "standin:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(worker.Main(context.Background(), os.Args[1:], map[string]agent.Agent{shell.Name: sender{}}, os.Stderr))
}

// order is what a message asks for: that many events, one every so often.
type order struct {
	Events int           `json:"events"`
	Every  time.Duration `json:"every"` // 0 = as fast as they can be sent
}

// send makes the events; each text is the time at which it was made, in nanoseconds of
// the machine's clock, for the reader to see how long it took.
func (o order) send(emit func(text string) error) error {
	next := time.Now()
	for range o.Events {
		if o.Every > 0 {
			next = next.Add(o.Every)
			time.Sleep(time.Until(next)) //nolint:forbidigo // the pace that was asked for
		}
		if err := emit(strconv.FormatInt(time.Now().UnixNano(), 10)); err != nil {
			return err
		}
	}
	return nil
}

// sender is the agent.
type sender struct{}

func (sender) Run(ctx context.Context, r *agent.Run) (*protocol.Result, error) {
	var o order
	if err := json.Unmarshal([]byte(r.Message), &o); err != nil {
		return nil, fmt.Errorf("the message is no order: %w", err)
	}
	err := o.send(func(text string) error { return r.Emit(ctx, protocol.EventTextDelta, protocol.TextDelta{Text: text}) })
	if err != nil {
		return nil, err
	}
	return &protocol.Result{RunID: r.ID, SessionID: r.SessionID, Status: protocol.StatusFinished, ToolCalls: []protocol.ToolCall{}}, nil
}

// plain answers each order on stdin with its events and an ending.
func plain(in io.Reader, out io.Writer) error {
	decoder := json.NewDecoder(bufio.NewReader(in))
	encoder := json.NewEncoder(out) // a write an event
	for {
		var o order
		if err := decoder.Decode(&o); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		seq := int64(0)
		emit := func(t protocol.EventType, data any) error {
			seq++
			content, err := json.Marshal(data)
			if err != nil {
				return err
			}
			return encoder.Encode(protocol.EventParams{RunID: "run", Seq: seq, Type: t, Data: content})
		}
		err := o.send(func(text string) error { return emit(protocol.EventTextDelta, protocol.TextDelta{Text: text}) })
		if err != nil {
			return err
		}
		if err := emit(protocol.EventRunFinished, struct{}{}); err != nil {
			return err
		}
	}
}
