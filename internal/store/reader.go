package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"

	"carrel/protocol"
)

// Bounds of what one call of Next gives; one event of any size always fits.
const (
	batchEvents = 512
	batchBytes  = 1 << 20
)

// Reader gives the stored events of one run, in order, from a number on. It is
// for one goroutine at a time and starts none. A reader that is not called costs
// nobody anything.
type Reader struct {
	store  *Store
	runID  string
	row    int64
	track  *track // nil if the run had ended when the reader was made
	cursor int64  // seq of the last event given
	done   bool   // the ending event was given, or lies before the cursor
}

// Events returns a reader of what follows event number after of a run; 0 gives
// all. An unknown run is CodeNotFound. Where after lies at or beyond the last
// event of an ended run, the reader is at its end; beyond that of a run still
// going, it gives only what comes after that number.
func (s *Store) Events(ctx context.Context, runID string, after int64) (*Reader, error) {
	if after < 0 {
		return nil, protocol.Errorf(protocol.CodeInvalidRequest, "after: %d is no event number", after)
	}
	t, h, err := s.track(ctx, runID)
	if err != nil {
		return nil, err
	}
	r := &Reader{store: s, runID: runID, row: h.row, track: t, cursor: after}
	if t != nil {
		r.row = t.row
	} else {
		r.done = after >= h.lastSeq
	}
	return r, nil
}

// Next returns the next events, at least one and at most 512 or about 1 MiB:
// never a gap, never an event twice. It waits while the run goes on and nothing
// new is stored; after the ending event it returns io.EOF. CodeNotFound tells
// that the run was deleted meanwhile, CodeShuttingDown that the store is closed.
// After an error that came from ctx or the database, Next may be called again.
// The events are shared with other readers: do not change their data.
func (r *Reader) Next(ctx context.Context) ([]protocol.Event, error) {
	closed := false
	for !r.done {
		if r.track == nil {
			return r.read(ctx)
		}
		events, wait, err := r.track.after(r.cursor)
		switch {
		case err == io.EOF: //nolint:errorlint // a sentinel of ours, never wrapped
			r.Close()
		case err != nil:
			return nil, err
		case len(events) > 0:
			return r.give(events), nil
		case wait == nil:
			return r.read(ctx)
		case closed:
			return nil, errClosed()
		default:
			select {
			case <-wait:
			case <-r.store.stopped:
				closed = true // but the last events may have come just before
			case <-ctx.Done():
				return nil, fmt.Errorf("wait for events of run %q: %w", r.runID, ended(ctx))
			}
		}
	}
	return nil, io.EOF
}

// read gives events from the database. They are there, or Next would have
// waited, unless the run is being deleted.
func (r *Reader) read(ctx context.Context) ([]protocol.Event, error) {
	events, err := r.store.storedEvents(ctx, r.runID, r.row, r.cursor, batchEvents)
	if err != nil {
		return nil, err
	}
	if len(events) == 0 || events[0].Seq != r.cursor+1 {
		return nil, r.store.whyMissing(ctx, r.runID, r.row, r.cursor+1)
	}
	return r.give(events), nil
}

// give moves the cursor behind events.
func (r *Reader) give(events []protocol.Event) []protocol.Event {
	last := events[len(events)-1]
	r.cursor = last.Seq
	if last.Type.Ends() {
		r.Close()
	}
	return events
}

// Close lets go of what the reader holds; Next then returns io.EOF.
func (r *Reader) Close() {
	r.done = true
	r.track = nil
}

// storedEvents reads at most limit events, and about batchBytes, that follow
// after.
func (s *Store) storedEvents(ctx context.Context, runID string, row, after int64, limit int) (events []protocol.Event, err error) {
	doing := fmt.Sprintf("read events of run %q", runID)
	rows, err := s.reading.events.QueryContext(ctx, row, after, limit)
	if err != nil {
		return nil, s.readFault(doing, err)
	}
	defer func() {
		if cerr := rows.Close(); err == nil && cerr != nil {
			events, err = nil, s.readFault(doing, cerr)
		}
	}()
	var bytes int64
	for bytes < batchBytes && rows.Next() {
		ev, micros := protocol.Event{RunID: runID}, int64(0)
		if err := rows.Scan(&ev.Seq, &micros, (*string)(&ev.Type), (*[]byte)(&ev.Data)); err != nil {
			return nil, s.readFault(doing, err)
		}
		ev.Time = fromMicros(micros)
		events = append(events, ev)
		bytes += sizeOf(ev)
	}
	if err := rows.Err(); err != nil {
		return nil, s.readFault(doing, err)
	}
	return events, nil
}

// whyMissing tells why a stored event is not there.
func (s *Store) whyMissing(ctx context.Context, runID string, row, seq int64) error {
	var one int
	err := s.reading.exists.QueryRowContext(ctx, row).Scan(&one)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return errNotFound(runID)
	case err != nil:
		return s.readFault(fmt.Sprintf("read run %q", runID), err)
	default:
		return protocol.Errorf(protocol.CodeInternal, "run %q: event %d is missing in the database", runID, seq)
	}
}
