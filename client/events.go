package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"carrel/protocol"
)

// maxTries is how many connections in a row may bring nothing. The waits between them
// last 13 s on average and 26 s at most, a Retry-After aside: a restart of the daemon
// fits in.
const maxTries = 10

// Events follows a run: it gives the events with a seq greater than after, in
// order, each exactly once, and ends after the run's last one. A lost connection
// is made again where it broke off.
//
// An error is given once and is the last: ctx's, an answer that no repetition
// changes ([*Error]), [ErrBrokenStream], or the last cause after too many tries in a
// row.
func (c *Client) Events(ctx context.Context, runID string, after int64) iter.Seq2[protocol.Event, error] {
	return func(yield func(protocol.Event, error) bool) {
		f := follower{client: c, runID: runID, last: max(0, after), yield: yield}
		if err := f.follow(ctx); err != nil {
			yield(protocol.Event{}, fmt.Errorf("follow %s: %w", runID, err))
		}
	}
}

// follower is one walk over a run's events.
type follower struct {
	client *Client
	runID  string // "" until the first event, where start is set
	start  *call  // begins the run, the same one however often it is sent
	last   int64  // seq of the last event given
	given  bool   // any was
	yield  func(protocol.Event, error) bool
	run    protocol.Run // as it was when the stream was found to be at its end
}

// follow connects until the run's events are given or nothing helps.
func (f *follower) follow(ctx context.Context) error {
	for tries := 1; ; tries++ {
		before, began := f.last, time.Now()
		heard, err := f.connect(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !transient(err) {
			return err
		}
		// A quiet run behind a proxy that cuts every connection after a while is not
		// given up either, if the daemon was heard until then.
		if f.last > before || heard && time.Since(began) >= maxWait {
			tries = 1
		}
		pause, ok := backoff(tries, err)
		switch {
		case !ok:
			return fmt.Errorf("gave up, for it has to wait %s: %w", pause.Round(time.Second), err)
		case tries == maxTries:
			return fmt.Errorf("gave up after %d tries: %w", tries, err)
		}
		if err := wait(ctx, pause); err != nil {
			return err
		}
	}
}

// request asks for what comes next.
func (f *follower) request() call {
	if f.runID == "" {
		return *f.start
	}
	what := call{method: http.MethodGet, path: runPath(f.runID) + "/events", header: http.Header{"Accept": {eventStream}}}
	if f.last > 0 {
		// Both say the same, for not every proxy lets the header pass.
		seq := strconv.FormatInt(f.last, 10)
		what.header.Set("Last-Event-Id", seq)
		what.query = url.Values{"after": {seq}}
	}
	return what
}

// connect gives the events that one connection brings, and tells whether it brought
// anything. It returns no error when there is no more to give: after the last event, or
// when the consumer has enough.
func (f *follower) connect(ctx context.Context) (heard bool, err error) {
	s, err := f.client.openStream(ctx, f.request())
	if err != nil {
		return false, err
	}
	defer s.close()
	for {
		fr, err := s.next()
		if errors.Is(err, io.EOF) {
			return s.dec.begun, f.atEnd(ctx, s)
		}
		if err != nil {
			return s.dec.begun, err
		}
		e, err := f.check(fr)
		if err != nil {
			return true, err
		}
		f.runID, f.last, f.given = e.RunID, e.Seq, true
		if !f.yield(e, nil) || e.Type.Ends() {
			return true, nil
		}
	}
}

// check decodes an event and holds it against what must come next.
func (f *follower) check(fr frame) (protocol.Event, error) {
	var e protocol.Event
	if err := json.Unmarshal(fr.data, &e); err != nil {
		return e, fmt.Errorf("%w: after event %d: %w", ErrBrokenStream, f.last, err)
	}
	switch {
	case e.RunID != f.runID && (f.runID != "" || e.RunID == ""):
		return e, fmt.Errorf("%w: an event of run %q", ErrBrokenStream, e.RunID)
	case e.Seq != f.last+1 || e.Seq < 1: // beyond the largest seq there is none
		return e, fmt.Errorf("%w: event %d after event %d", ErrBrokenStream, e.Seq, f.last)
	case fr.id != strconv.FormatInt(e.Seq, 10) || fr.event != string(e.Type):
		return e, fmt.Errorf("%w: event %d (%s) in a frame that says %q (%q)", ErrBrokenStream, e.Seq, e.Type, fr.id, fr.event)
	}
	return e, nil
}

// atEnd decides what the end of an answer means that had no last event: the
// walk began beyond the run's end, or the daemon cut the answer short.
func (f *follower) atEnd(ctx context.Context, s *stream) error {
	if f.runID == "" {
		return s.ended("run")
	}
	run, err := f.client.Run(ctx, f.runID)
	if err != nil {
		return err
	}
	if run.Status.Ended() && run.LastSeq <= f.last {
		if f.given { // and the walk would have ended with the run's last event
			return fmt.Errorf("%w: %s is %s after %d events, and event %d is not its end", ErrBrokenStream, f.runID, run.Status, run.LastSeq, f.last)
		}
		f.run = run
		return nil
	}
	return s.ended("run")
}
