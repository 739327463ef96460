package pool

import (
	"bytes"
	"context"
	"fmt"
	"sync"

	"carrel/protocol"
)

// stream is what a worker sends for one going call.
type stream interface {
	key() string
	// failure is the error of the caller's sink, if that ended the call.
	failure() error
	// close waits for the sink and lets nothing through any more.
	close()
	// starts gives the stream the means to end its own call.
	starts(end context.CancelCauseFunc)
}

// calls are the going calls of one worker.
type calls struct {
	mu     sync.Mutex
	going  map[string]stream
	ends   map[string]context.CancelCauseFunc
	ended  error  // set once no new call is to begin
	serial uint64 // for calls that come without an id
}

func (c *calls) init() {
	c.going = make(map[string]stream)
	c.ends = make(map[string]context.CancelCauseFunc)
}

func (c *calls) number() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.serial++
	return c.serial
}

func (c *calls) add(st stream, end context.CancelCauseFunc) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended != nil {
		return c.ended
	}
	if c.going[st.key()] != nil {
		return protocol.Errorf(protocol.CodeConflict, "%s is going already", st.key())
	}
	st.starts(end)
	c.going[st.key()], c.ends[st.key()] = st, end
	return nil
}

// remove takes a call off; its sink is not called after that.
func (c *calls) remove(st stream) {
	c.mu.Lock()
	delete(c.going, st.key())
	delete(c.ends, st.key())
	c.mu.Unlock()
	st.close()
}

// end cancels all going calls, and those that would begin.
func (c *calls) end(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = err
	for _, end := range c.ends {
		end(err)
	}
}

func (c *calls) find(key string) stream {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.going[key]
}

func (c *calls) event(ev protocol.EventParams) error {
	run, ok := c.find(runKey(ev.RunID)).(*runStream)
	if !ok {
		return fmt.Errorf("event of run %.40q, which is not going", ev.RunID)
	}
	return run.take(ev)
}

func (c *calls) output(out protocol.ExecOutputParams) error {
	exec, ok := c.find(execKey(out.ExecID)).(*execStream)
	if !ok {
		return fmt.Errorf("output of exec %.40q, which is not going", out.ExecID)
	}
	return exec.take(out)
}

func runKey(id string) string  { return "run " + id }
func execKey(id string) string { return "exec " + id }

// delivery hands what has been checked to a sink, one at a time.
type delivery struct {
	mu     sync.Mutex // held while the sink runs
	closed bool
	failed error
	end    context.CancelCauseFunc
}

func (d *delivery) starts(end context.CancelCauseFunc) { d.end = end }

func (d *delivery) failure() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.failed
}

func (d *delivery) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
}

// hand calls sink, with d.mu held. An error of the sink is the host's trouble:
// it ends the run, not the worker.
func (d *delivery) hand(sink func() error) {
	if d.closed || d.failed != nil {
		return
	}
	if err := sink(); err != nil {
		d.failed = err
		d.end(err)
	}
}

// runStream checks the events of one run.
type runStream struct {
	delivery

	id   string
	sink func(protocol.EventParams) error
	seq  int64
	last protocol.EventType
}

func (r *runStream) key() string { return runKey(r.id) }

// take checks one event and hands it on. The error is the worker's violation.
func (r *runStream) take(ev protocol.EventParams) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.last.Ends():
		return fmt.Errorf("event %d of run %s after its last, %s", ev.Seq, r.id, r.last)
	case ev.Seq != r.seq+1:
		return fmt.Errorf("event %d of run %s where %d was due", ev.Seq, r.id, r.seq+1)
	case (ev.Type == protocol.EventRunStarted) != (ev.Seq == 1):
		return fmt.Errorf("event %d of run %s is a %.40q", ev.Seq, r.id, ev.Type)
	case !known(ev.Type):
		return fmt.Errorf("event %d of run %s has the unknown type %.40q", ev.Seq, r.id, ev.Type)
	case len(ev.Data) > protocol.MaxLineBytes:
		return fmt.Errorf("event %d of run %s has %d bytes of data", ev.Seq, r.id, len(ev.Data))
	case !bytes.HasPrefix(bytes.TrimLeft(ev.Data, " \t\r\n"), []byte("{")):
		return fmt.Errorf("data of event %d of run %s is no object", ev.Seq, r.id)
	}
	r.seq, r.last = ev.Seq, ev.Type
	r.hand(func() error { return r.sink(ev) })
	return nil
}

// checkEnd reports how the worker's answer contradicts its events: a run ends
// with RUN_FINISHED before its result, with RUN_ERROR before its error, unless
// it was refused before it began.
func (r *runStream) checkEnd(finished bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case finished && r.last != protocol.EventRunFinished:
		return fmt.Errorf("run %s has a result, but its last event is %q", r.id, r.last)
	case !finished && r.seq > 0 && !r.last.Ends():
		return fmt.Errorf("run %s was answered with an error, but its last event is %q", r.id, r.last)
	}
	return nil
}

// known reports whether t is one of the contract's event types. A type of the
// worker's own making could break the framing of what clients are sent.
func known(t protocol.EventType) bool {
	switch t {
	case protocol.EventRunStarted, protocol.EventTextDelta, protocol.EventThinkingDelta,
		protocol.EventToolCallStart, protocol.EventToolCallArgs, protocol.EventToolOutput,
		protocol.EventToolCallResult, protocol.EventApprovalRequested, protocol.EventApprovalResolved,
		protocol.EventUsage, protocol.EventRunFinished, protocol.EventRunError:
		return true
	case protocol.ExecStdout, protocol.ExecStderr, protocol.ExecExit: // of a command, not of a run
		return false
	default:
		return false
	}
}

// execStream checks the output of one command.
type execStream struct {
	delivery

	id   string
	sink func(protocol.ExecOutputParams) error
}

func (e *execStream) key() string { return execKey(e.id) }

func (e *execStream) take(out protocol.ExecOutputParams) error {
	if e.sink == nil || (out.Type != protocol.ExecStdout && out.Type != protocol.ExecStderr) {
		return fmt.Errorf("output %.40q of exec %s, which asked for none such", out.Type, e.id)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.hand(func() error { return e.sink(out) })
	return nil
}
