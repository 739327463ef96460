package store

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"carrel/protocol"
)

// MaxDataBytes is the longest data of an event: none can be longer that came
// over a worker's stream.
const MaxDataBytes = protocol.MaxLineBytes

// maxTypeBytes is far above the longest event type there is.
const maxTypeBytes = 64

// Append takes the next event of a run in and returns; the writer stores the
// run's events in this order, and only then do readers see them. Where the run
// has too much waiting to be stored, Append waits too, until there is room or
// ctx ends. The store keeps ev.Data: do not change it afterwards.
//
// The event's number must be the one after the run's last (CodeConflict), and
// nothing may follow an ending event (CodeConflict). An event that is here
// already, with the same type and data, is taken as done, whatever its time. An
// event without a time gets the present one, one without data an empty object.
// CodeInvalidRequest and CodeTooLarge tell of an event that can never be stored,
// CodeNotFound of an unknown or deleted run, CodeShuttingDown of a closed store.
//
// A CodeInternal tells that an earlier write of this run failed: ev and
// everything that Flush did not acknowledge are lost and were shown to nobody.
// It is told once; then the run goes on after its [Store.LastSeq].
func (s *Store) Append(ctx context.Context, ev protocol.Event) error {
	ev, err := s.normal(ev)
	if err != nil {
		return err
	}
	t, h, err := s.track(ctx, ev.RunID)
	if err != nil {
		return err
	}
	if t == nil { // ended
		if ev.Seq <= h.lastSeq {
			return s.checkRepeat(ctx, h.row, ev)
		}
		return errEnded(ev)
	}
	return s.appendTo(ctx, t, ev)
}

func (s *Store) appendTo(ctx context.Context, t *track, ev protocol.Event) error {
	t.mu.Lock()
	failures := t.failures
	for {
		if err := t.failureSinceLocked(failures); err != nil {
			t.mu.Unlock()
			return err
		}
		switch {
		case t.dead != nil:
			t.mu.Unlock()
			return t.dead
		case ev.Seq <= t.accepted:
			have, ok := t.findLocked(ev.Seq)
			t.mu.Unlock()
			if ok {
				return compare(have, ev)
			}
			return s.checkRepeat(ctx, t.row, ev)
		case t.sealed:
			t.mu.Unlock()
			return errEnded(ev)
		case ev.Seq != t.accepted+1:
			err := protocol.Errorf(protocol.CodeConflict, "run %q: event %d does not follow event %d", ev.RunID, ev.Seq, t.accepted)
			t.mu.Unlock()
			return err
		}
		if !t.fullLocked(ev) {
			break
		}
		room := t.roomLocked()
		t.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return fmt.Errorf("append event %d of run %q: wait for the writer: %w", ev.Seq, ev.RunID, ended(ctx))
		}
		t.mu.Lock()
	}
	defer t.mu.Unlock()
	if !t.queued {
		if err := s.push(t); err != nil {
			return err
		}
		t.queued = true
	}
	t.acceptLocked(ev)
	return nil
}

// Flush waits until every event is stored that Append has taken in for the run
// before the call. Its CodeInternal is that of [Store.Append].
func (s *Store) Flush(ctx context.Context, runID string) error {
	t, _, err := s.track(ctx, runID)
	if err != nil || t == nil {
		return err
	}
	t.mu.Lock()
	target, failures := t.accepted, t.failures
	for {
		if err := t.failureSinceLocked(failures); err != nil {
			t.mu.Unlock()
			return err
		}
		if t.dead != nil || t.stored >= target {
			defer t.mu.Unlock()
			return t.dead
		}
		news := t.newsLocked()
		t.mu.Unlock()
		select {
		case <-news:
		case <-ctx.Done():
			return fmt.Errorf("flush run %q: %w", runID, ended(ctx))
		}
		t.mu.Lock()
	}
}

// LastSeq returns the number of the run's last stored event; 0 if none is.
func (s *Store) LastSeq(ctx context.Context, runID string) (int64, error) {
	h, err := s.header(ctx, runID)
	return h.lastSeq, err
}

// normal returns ev as it is stored and shown.
func (s *Store) normal(ev protocol.Event) (protocol.Event, error) {
	if ev.Time.IsZero() {
		ev.Time = s.now()
	}
	ev.Time = instant(ev.Time)
	if len(ev.Data) == 0 {
		ev.Data = json.RawMessage("{}")
	}
	invalid := func(format string, args ...any) error {
		return protocol.Errorf(protocol.CodeInvalidRequest, "event %d of run %q: %w", ev.Seq, ev.RunID, fmt.Errorf(format, args...))
	}
	switch {
	case ev.Seq < 1:
		return ev, invalid("numbers start at 1")
	case ev.Type == "" || len(ev.Type) > maxTypeBytes:
		return ev, invalid("%.64q is no event type", ev.Type)
	case len(ev.Data) > MaxDataBytes:
		return ev, protocol.Errorf(protocol.CodeTooLarge, "event %d of run %q: %d bytes of data, at most %d are allowed",
			ev.Seq, ev.RunID, len(ev.Data), MaxDataBytes)
	case ev.Data[0] != '{' || !json.Valid(ev.Data):
		return ev, invalid("the data is no JSON object")
	}
	if ev.Type.Ends() {
		// The run's result or error is read from here for as long as it is kept.
		if _, _, err := outcome(ev.Type, ev.Data); err != nil {
			return ev, invalid("%w", err)
		}
	}
	return ev, nil
}

// outcome decodes the data of an ending event.
func outcome(ending protocol.EventType, data []byte) (*protocol.Result, *protocol.RunError, error) {
	if ending == protocol.EventRunFinished {
		var r protocol.Result
		if err := json.Unmarshal(data, &r); err != nil {
			return nil, nil, fmt.Errorf("decode result: %w", err)
		}
		if r.ToolCalls == nil {
			r.ToolCalls = []protocol.ToolCall{} // never null, says the protocol
		}
		return &r, nil, nil
	}
	var e protocol.RunError
	if err := json.Unmarshal(data, &e); err != nil {
		return nil, nil, fmt.Errorf("decode error: %w", err)
	}
	return nil, &e, nil
}

func errEnded(ev protocol.Event) error {
	return protocol.Errorf(protocol.CodeConflict, "run %q has ended: event %d comes too late", ev.RunID, ev.Seq)
}

// compare accepts ev if it tells the same as the event that has its number.
func compare(have, ev protocol.Event) error {
	if have.Type == ev.Type && bytes.Equal(have.Data, ev.Data) {
		return nil
	}
	return protocol.Errorf(protocol.CodeConflict, "run %q: event %d is there already, with other content", ev.RunID, ev.Seq)
}

// checkRepeat compares ev with the stored event that has its number.
func (s *Store) checkRepeat(ctx context.Context, row int64, ev protocol.Event) error {
	have, err := s.storedEvents(ctx, ev.RunID, row, ev.Seq-1, 1)
	if err != nil {
		return err
	}
	if len(have) == 0 {
		return errNotFound(ev.RunID) // deleted since
	}
	return compare(have[0], ev)
}

// header is what decides where a run's events go on.
type header struct {
	row     int64 // runs.id
	lastSeq int64
	ended   bool
}

func (s *Store) header(ctx context.Context, runID string) (header, error) {
	var h header
	err := s.reading.header.QueryRowContext(ctx, runID).Scan(&h.row, &h.lastSeq, &h.ended)
	if errors.Is(err, sql.ErrNoRows) {
		return header{}, errNotFound(runID)
	}
	if err != nil {
		return header{}, s.readFault(fmt.Sprintf("read run %q", runID), err)
	}
	return h, nil
}

// track returns the run's track, or none and its header if the run has ended.
func (s *Store) track(ctx context.Context, runID string) (*track, header, error) {
	for {
		s.mu.Lock()
		t, departures := s.tracks[runID], s.departures
		s.mu.Unlock()
		if t != nil {
			return t, header{}, nil
		}
		h, err := s.header(ctx, runID)
		if err != nil || h.ended {
			return nil, h, err
		}
		s.mu.Lock()
		t = s.tracks[runID]
		if t == nil && departures == s.departures {
			t = newTrack(runID, h.row, h.lastSeq)
			s.tracks[runID] = t
		}
		s.mu.Unlock()
		if t != nil {
			return t, h, nil
		}
		// A run ended since the header was read, perhaps this one.
	}
}

// forget drops tracks whose runs have ended or belong to another process.
func (s *Store) forget(tracks []*track) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.departures++
	for _, t := range tracks {
		if s.tracks[t.runID] == t {
			delete(s.tracks, t.runID)
		}
	}
}
