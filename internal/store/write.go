package store

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"carrel/protocol"
)

// Bounds of one transaction; a run's pending events go in whole, so they may be
// passed by those of one run.
const (
	transactionEvents = 8192
	transactionBytes  = 8 << 20
	maxTasks          = 256
	slowCommit        = time.Second // worth a line in the log
)

// batch is what one transaction stores.
type batch struct {
	tasks  []*task
	parts  []part
	events int
	bytes  int64
}

// part is a run's share of a batch.
type part struct {
	track   *track
	events  []protocol.Event
	refused error // why the events cannot go in; the others of the batch do
}

// task is a change besides events. The writer calls its functions.
type task struct {
	// apply makes the change; an error fails the whole transaction.
	apply func(context.Context, *writer) error
	// publish brings the memory in line with the committed change.
	publish   func()
	abandoned func() error // not nil: the caller has stopped waiting, leave it out
	err       error
	done      chan struct{}
}

// do has the writer make a change, and returns when it is committed. If ctx ends
// first, the change may have been made or not.
func (s *Store) do(ctx context.Context, apply func(context.Context, *writer) error, publish func()) error {
	t := &task{
		apply:     apply,
		publish:   publish,
		abandoned: func() error { return ended(ctx) },
		done:      make(chan struct{}),
	}
	select {
	case <-s.closing:
		return errClosed()
	case <-ctx.Done():
		return ended(ctx)
	case s.tasks <- t:
	}
	select {
	case <-t.done:
		return t.err
	case <-ctx.Done():
		return ended(ctx)
	case <-s.stopped:
	}
	select {
	case <-t.done: // in the last batch
		return t.err
	default:
		return errClosed()
	}
}

// Ping returns nil once the writer has taken its turn and read from the database: it
// neither hangs nor is it gone. It writes nothing, so a full disk does not matter.
// Errors: CodeShuttingDown (the store is closed); CodeInternal; the end of ctx.
func (s *Store) Ping(ctx context.Context) error {
	err := s.do(ctx, func(ctx context.Context, w *writer) error {
		var version int64
		return w.conn.QueryRowContext(ctx, "PRAGMA schema_version").Scan(&version)
	}, nil)
	if err != nil {
		return fault("ping", err)
	}
	return nil
}

// push tells the writer that t has pending events. t.mu is held.
func (s *Store) push(t *track) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errClosed()
	}
	s.dirty = append(s.dirty, t)
	select {
	case s.work <- struct{}{}:
	default: // the token is there
	}
	return nil
}

func (s *Store) countDirty() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.dirty)
}

// pop takes the track that has waited longest. Only the writer does, so what it
// has counted is there.
func (s *Store) pop() *track {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.dirty[0]
	s.dirty[0] = nil
	s.dirty = s.dirty[1:]
	return t
}

// write is the writer: it stores batch after batch until the store closes and
// nothing is left.
func (s *Store) write(ctx context.Context) {
	defer close(s.stopped)
	for {
		b := s.collect()
		if b == nil {
			return
		}
		begin := time.Now()
		err := s.writer.commit(ctx, b)
		if d := time.Since(begin); d > slowCommit {
			s.log.WarnContext(ctx, "slow commit", slog.Duration("took", d),
				slog.Int("events", b.events), slog.Int64("bytes", b.bytes))
		}
		s.settle(b, err)
	}
}

// collect waits for something to write. It returns nil once the store closes
// and nothing is left.
func (s *Store) collect() *batch {
	closing := false
	for {
		b := &batch{}
		s.gather(b)
		if len(b.tasks)+len(b.parts) > 0 {
			return b
		}
		if closing {
			return nil
		}
		select {
		case t := <-s.tasks:
			b.tasks = append(b.tasks, t)
			s.gather(b)
			return b
		case <-s.work:
		case <-s.closing:
			closing = true // push refuses from now on: look once more
		}
	}
}

// gather puts into b what waits, up to the bounds of a transaction.
func (s *Store) gather(b *batch) {
	for more := true; more && len(b.tasks) < maxTasks; {
		select {
		case t := <-s.tasks:
			b.tasks = append(b.tasks, t)
		default:
			more = false
		}
	}
	// A run that floods is dirty again as soon as its events are taken. It is not
	// taken twice for one batch: its turn comes after the others'.
	for range s.countDirty() {
		if b.events >= transactionEvents || b.bytes >= transactionBytes {
			return
		}
		t := s.pop()
		if events, bytes := t.take(); len(events) > 0 {
			b.parts = append(b.parts, part{track: t, events: events})
			b.events += len(events)
			b.bytes += bytes
		}
	}
}

// settle shows what b has committed, or tells those concerned that it failed.
func (s *Store) settle(b *batch, err error) {
	if err != nil {
		err = protocol.Errorf(protocol.CodeInternal, "store: %w", err)
	}
	for _, t := range b.tasks {
		if t.err == nil {
			t.err = err
		}
		if t.err == nil && t.publish != nil {
			t.publish()
		}
		close(t.done)
	}
	var departed []*track
	for _, p := range b.parts {
		switch {
		case err != nil:
			p.track.fail(fmt.Errorf("run %q: %w", p.track.runID, err))
		case p.refused != nil:
			p.track.kill(p.refused)
			departed = append(departed, p.track)
		case p.track.publish():
			departed = append(departed, p.track)
		}
	}
	if len(departed) > 0 {
		s.forget(departed)
	}
}
