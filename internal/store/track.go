package store

import (
	"io"
	"sync"

	"carrel/protocol"
)

// Bounds of what one run holds in memory. An event's size is that of its data
// and eventOverheadBytes. One event of any allowed size is always let in, so
// the bytes may be passed by one event.
const (
	queueEvents        = 2048
	queueBytes         = 512 << 10
	recentEvents       = 2 * queueEvents
	recentBytes        = 2 * queueBytes
	eventOverheadBytes = 128 // the struct, its type and its place in a slice
)

func sizeOf(ev protocol.Event) int64 { return int64(len(ev.Data)) + eventOverheadBytes }

// track is what the store knows of one run that has not ended: the way of its
// events from Append to the readers. After the ending event is stored it lives
// on only in the readers that have still to give its last events.
type track struct {
	runID string
	row   int64 // runs.id

	mu       sync.Mutex
	accepted int64 // seq of the last event taken in
	stored   int64 // seq of the last event committed; at most accepted
	sealed   bool  // an ending event is taken in
	ended    bool  // an ending event is committed
	queued   bool  // stands in Store.dirty
	dead     error // why nothing more will ever come through here
	pending  []protocol.Event
	flight   []protocol.Event // in the transaction under way
	recent   recent

	pendingBytes int64

	// A failed transaction takes with it everything that was not stored.
	failures   int   // how many there were
	failure    error // the last one
	unreported bool  // no caller has been told yet

	room chan struct{} // closed and dropped when pending is emptied
	news chan struct{} // closed and dropped when stored, ended, dead or failures change
}

func newTrack(runID string, row, lastSeq int64) *track {
	return &track{runID: runID, row: row, accepted: lastSeq, stored: lastSeq}
}

// The methods below whose names end in Locked want mu held.

func (t *track) roomLocked() <-chan struct{} { return lazy(&t.room) }
func (t *track) newsLocked() <-chan struct{} { return lazy(&t.news) }

func lazy(c *chan struct{}) <-chan struct{} {
	if *c == nil {
		*c = make(chan struct{})
	}
	return *c
}

func wake(c *chan struct{}) {
	if *c != nil {
		close(*c)
		*c = nil
	}
}

// reportLocked returns why the run's last write failed, unless that has been
// told to somebody.
func (t *track) reportLocked() error {
	if !t.unreported {
		return nil
	}
	t.unreported = false
	return t.failure
}

// failureSinceLocked returns the last failure if nobody has been told of it, or
// if it came after the first n: then the caller has waited for what it took.
func (t *track) failureSinceLocked(n int) error {
	if err := t.reportLocked(); err != nil {
		return err
	}
	if t.failures > n {
		return t.failure
	}
	return nil
}

func (t *track) report() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.reportLocked()
}

// fullLocked reports whether ev has to wait for room.
func (t *track) fullLocked(ev protocol.Event) bool {
	return len(t.pending) >= queueEvents ||
		len(t.pending) > 0 && t.pendingBytes+sizeOf(ev) > queueBytes
}

func (t *track) acceptLocked(ev protocol.Event) {
	t.pending = append(t.pending, ev)
	t.pendingBytes += sizeOf(ev)
	t.accepted = ev.Seq
	t.sealed = ev.Type.Ends()
}

// findLocked returns the event with this number if it is in memory.
func (t *track) findLocked(seq int64) (protocol.Event, bool) {
	for _, events := range [][]protocol.Event{t.pending, t.flight, t.recent.after(seq - 1)} {
		if len(events) == 0 {
			continue
		}
		if i := seq - events[0].Seq; i >= 0 && i < int64(len(events)) {
			return events[i], true
		}
	}
	return protocol.Event{}, false
}

// take hands the pending events to the writer; publish or fail must follow.
func (t *track) take() (events []protocol.Event, bytes int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.queued = false
	events, bytes = t.pending, t.pendingBytes
	t.flight, t.pending, t.pendingBytes = events, nil, 0
	wake(&t.room)
	return events, bytes
}

// publish shows the events taken, which are committed now. It reports whether
// the run has ended.
func (t *track) publish() (ended bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	last := t.flight[len(t.flight)-1]
	t.stored, t.ended = last.Seq, last.Type.Ends()
	t.recent.add(t.flight)
	t.flight = nil
	wake(&t.news)
	return t.ended
}

// fail drops everything that is not stored: what follows a lost event cannot be
// stored without a gap.
func (t *track) fail(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.flight, t.pending, t.pendingBytes = nil, nil, 0
	t.accepted, t.sealed = t.stored, false
	t.failures++
	t.failure, t.unreported = err, true
	wake(&t.room)
	wake(&t.news)
}

// kill ends the track for good: its run is gone, or another process has it.
func (t *track) kill(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dead = err
	t.flight, t.pending, t.pendingBytes, t.recent = nil, nil, 0, recent{}
	wake(&t.room)
	wake(&t.news)
}

// after returns what a reader gives after seq: the committed events that follow,
// if they are in memory; else a channel to wait on, if none is committed yet;
// else neither: they have to be read from the database. io.EOF tells that none
// will follow.
func (t *track) after(seq int64) ([]protocol.Event, <-chan struct{}, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.dead != nil:
		return nil, nil, t.dead
	case seq < t.stored:
		return t.recent.after(seq), nil, nil
	case t.ended:
		return nil, nil, io.EOF
	default:
		return nil, t.newsLocked(), nil
	}
}
