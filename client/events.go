package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"carrel/protocol"
)

// Reconnecting. With full jitter (each wait is random between nothing and a
// bound that doubles) clients that lost one daemon do not return all at once.
// The waits that maxTries allows last 13 s on average and 26 s at most, a
// Retry-After aside: a restart of the daemon fits in.
const (
	maxTries      = 10 // in a row that brought no event
	firstWait     = 100 * time.Millisecond
	maxWait       = 5 * time.Second
	maxRetryAfter = 30 * time.Second
)

// errViolation tells of a stream that is not what it must be. To connect again
// would hide it.
var errViolation = errors.New("event stream broken")

// Events follows a run: it gives the events with a seq greater than after, in
// order, each exactly once, and ends after the run's last one. A lost connection
// is made again where it broke off.
//
// An error is given once and is the last: ctx's, an answer that no repetition
// changes ([*protocol.Error]), a gap or a double in the stream, or the last
// cause after too many tries in a row.
func (c *Client) Events(ctx context.Context, runID string, after int64) iter.Seq2[protocol.Event, error] {
	return func(yield func(protocol.Event, error) bool) {
		f := follower{client: c, runID: runID, last: after, yield: yield}
		if err := f.follow(ctx); err != nil {
			yield(protocol.Event{}, fmt.Errorf("follow %s: %w", runID, err))
		}
	}
}

// follower is one walk over a run's events.
type follower struct {
	client *Client
	runID  string
	last   int64 // seq of the last event given
	yield  func(protocol.Event, error) bool
}

// follow connects until the run's events are given or nothing helps.
func (f *follower) follow(ctx context.Context) error {
	for tries := 1; ; tries++ {
		before := f.last
		err := f.connect(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !transient(err) {
			return err
		}
		if f.last > before {
			tries = 1
		}
		if tries == maxTries {
			return fmt.Errorf("gave up after %d tries: %w", tries, err)
		}
		if err := wait(ctx, backoff(tries, err)); err != nil {
			return err
		}
	}
}

// connect gives the events that one connection brings. It returns nil when there
// is no more to give: after the last event, or when the consumer has enough.
func (f *follower) connect(ctx context.Context) error {
	header := http.Header{"Accept": {"text/event-stream"}}
	if f.last > 0 {
		header.Set("Last-Event-Id", strconv.FormatInt(f.last, 10))
	}
	s, err := f.client.openStream(ctx, call{method: http.MethodGet, path: runPath(f.runID) + "/events", header: header})
	if err != nil {
		return err
	}
	defer s.close()
	for {
		fr, err := s.next()
		if errors.Is(err, io.EOF) {
			return f.atEnd(ctx, s)
		}
		if err != nil {
			return err
		}
		e, err := f.check(fr)
		if err != nil {
			return err
		}
		f.last = e.Seq
		if !f.yield(e, nil) || e.Type.Ends() {
			return nil
		}
	}
}

// check decodes an event and holds it against what must come next.
func (f *follower) check(fr frame) (protocol.Event, error) {
	var e protocol.Event
	if err := json.Unmarshal(fr.data, &e); err != nil {
		return e, fmt.Errorf("%w: after event %d: %w", errViolation, f.last, err)
	}
	switch {
	case e.RunID != f.runID:
		return e, fmt.Errorf("%w: an event of run %q", errViolation, e.RunID)
	case e.Seq != f.last+1:
		return e, fmt.Errorf("%w: event %d after event %d", errViolation, e.Seq, f.last)
	case fr.id != strconv.FormatInt(e.Seq, 10) || fr.event != string(e.Type):
		return e, fmt.Errorf("%w: event %d (%s) in a frame that says %q (%q)", errViolation, e.Seq, e.Type, fr.id, fr.event)
	}
	return e, nil
}

// atEnd decides what the end of an answer means that had no last event: the
// walk began beyond the run's end, or the daemon cut the answer short.
func (f *follower) atEnd(ctx context.Context, s *stream) error {
	run, err := f.client.Run(ctx, f.runID)
	if err != nil {
		return err
	}
	if run.Status.Ended() && run.LastSeq <= f.last {
		return nil
	}
	return s.ended("run")
}

// transient reports whether the same request may have another answer later.
func transient(err error) bool {
	if errors.Is(err, errViolation) || errors.Is(err, errFrameTooLong) {
		return false
	}
	e, ok := errors.AsType[*protocol.Error](err)
	return !ok || e.Code.HTTPStatus() >= 500 || e.Code.HTTPStatus() == http.StatusTooManyRequests
}

// backoff returns how long to wait after so many tries in a row.
func backoff(tries int, err error) time.Duration {
	bound := min(firstWait<<(tries-1), maxWait)
	d := rand.N(bound) //nolint:gosec // jitter, not a secret
	if e, ok := errors.AsType[*protocol.Error](err); ok && e.RetryAfter > 0 {
		d += min(e.RetryAfter, maxRetryAfter)
	}
	return d
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
