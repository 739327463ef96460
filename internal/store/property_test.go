package store_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"testing"

	"pgregory.net/rapid"

	"carrel/internal/store"
	"carrel/internal/store/storetest"
	"carrel/protocol"
)

// model is what a store must show: every accepted event of every run.
type model struct {
	s       *store.Store
	t       *testing.T
	runs    []string
	events  map[string][]protocol.Event
	readers []*modelReader
}

type modelReader struct {
	r      *store.Reader
	runID  string
	cursor int64
}

func (m *model) ended(runID string) bool {
	events := m.events[runID]
	return len(events) > 0 && events[len(events)-1].Type.Ends()
}

func TestStoreDoesWhatThePlainModelDoes(t *testing.T) {
	s := open(t)
	trial := 0
	rapid.Check(t, func(rt *rapid.T) {
		trial++
		m := &model{s: s, t: t, events: map[string][]protocol.Event{}}
		for i := range rapid.IntRange(1, 3).Draw(rt, "runs") {
			runID := fmt.Sprintf("run_%d_%d", trial, i)
			create(t, s, runID)
			m.runs = append(m.runs, runID)
		}
		rt.Repeat(map[string]func(*rapid.T){
			"append":         m.appendNext,
			"append wrongly": m.appendWrong,
			"repeat":         m.repeat,
			"end":            m.end,
			"flush":          func(rt *rapid.T) { m.flush(rt, m.run(rt)) },
			"join":           m.join,
			"read":           m.read,
		})
		for _, r := range m.readers {
			m.drain(rt, r)
		}
		for _, runID := range m.runs {
			r := &modelReader{runID: runID}
			m.open(rt, r)
			m.drain(rt, r)
		}
	})
}

func (m *model) run(rt *rapid.T) string { return rapid.SampledFrom(m.runs).Draw(rt, "run") }

func (m *model) appendNext(rt *rapid.T) {
	runID := m.run(rt)
	for range rapid.IntRange(1, 700).Draw(rt, "events") {
		seq := int64(len(m.events[runID]) + 1)
		ev := storetest.Event(runID, seq, protocol.EventTextDelta, protocol.TextDelta{Text: fmt.Sprint(seq)})
		err := m.s.Append(m.t.Context(), ev)
		if m.ended(runID) {
			m.wantConflict(rt, err)
			return
		}
		if err != nil {
			rt.Fatalf("Append(%d): %v", seq, err)
		}
		m.events[runID] = append(m.events[runID], ev)
	}
}

func (m *model) appendWrong(rt *rapid.T) {
	runID := m.run(rt)
	have := int64(len(m.events[runID]))
	seq := rapid.Int64Range(1, have+5).Draw(rt, "seq")
	if seq == have+1 {
		seq++
	}
	m.wantConflict(rt, m.s.Append(m.t.Context(), storetest.Event(runID, seq, protocol.EventUsage, protocol.Usage{InputTokens: 1})))
}

func (m *model) wantConflict(rt *rapid.T, err error) {
	if protocol.CodeOf(err) != protocol.CodeConflict || err == nil {
		rt.Fatalf("error %v, want %s", err, protocol.CodeConflict)
	}
}

func (m *model) repeat(rt *rapid.T) {
	runID := m.run(rt)
	if len(m.events[runID]) == 0 {
		return
	}
	ev := rapid.SampledFrom(m.events[runID]).Draw(rt, "event")
	if err := m.s.Append(m.t.Context(), ev); err != nil {
		rt.Fatalf("Append(%d) again: %v", ev.Seq, err)
	}
}

func (m *model) end(rt *rapid.T) {
	runID := m.run(rt)
	if m.ended(runID) || rapid.IntRange(0, 3).Draw(rt, "end seldom") != 0 {
		return
	}
	ev := storetest.Event(runID, int64(len(m.events[runID])+1), protocol.EventRunError, protocol.RunError{Code: protocol.CodeCanceled})
	if err := m.s.Append(m.t.Context(), ev); err != nil {
		rt.Fatalf("Append of the ending: %v", err)
	}
	m.events[runID] = append(m.events[runID], ev)
}

func (m *model) flush(rt *rapid.T, runID string) {
	if err := m.s.Flush(m.t.Context(), runID); err != nil {
		rt.Fatalf("Flush: %v", err)
	}
	run, err := m.s.Run(m.t.Context(), runID)
	if err != nil || run.LastSeq != int64(len(m.events[runID])) || run.Status.Ended() != m.ended(runID) {
		rt.Fatalf("Run = %+v, %v; want %d events, ended %v", run, err, len(m.events[runID]), m.ended(runID))
	}
}

func (m *model) join(rt *rapid.T) {
	r := &modelReader{runID: m.run(rt)}
	r.cursor = rapid.Int64Range(0, int64(len(m.events[r.runID]))).Draw(rt, "after")
	m.open(rt, r)
	m.readers = append(m.readers, r)
}

func (m *model) open(rt *rapid.T, r *modelReader) {
	var err error
	if r.r, err = m.s.Events(m.t.Context(), r.runID, r.cursor); err != nil {
		rt.Fatalf("Events: %v", err)
	}
}

func (m *model) read(rt *rapid.T) {
	if len(m.readers) > 0 {
		m.next(rt, rapid.SampledFrom(m.readers).Draw(rt, "reader"))
	}
}

func (m *model) drain(rt *rapid.T, r *modelReader) {
	for m.next(rt, r) {
	}
	if r.cursor != int64(len(m.events[r.runID])) {
		rt.Fatalf("the reader stands at %d of %d", r.cursor, len(m.events[r.runID]))
	}
}

// next reads one batch, if there is something to wait for, and reports whether
// there was.
func (m *model) next(rt *rapid.T, r *modelReader) bool {
	want := m.events[r.runID]
	if r.cursor == int64(len(want)) {
		if m.ended(r.runID) {
			if _, err := r.r.Next(m.t.Context()); err != io.EOF { //nolint:errorlint // the promise is io.EOF itself
				rt.Fatalf("Next at the end = %v, want io.EOF", err)
			}
		}
		return false
	}
	got, err := r.r.Next(m.t.Context())
	if err != nil || len(got) == 0 {
		rt.Fatalf("Next = %d events, %v", len(got), err)
	}
	for _, ev := range got {
		w, g := mustJSON(storetest.Stored(want[r.cursor])), mustJSON(ev)
		if !bytes.Equal(w, g) {
			rt.Fatalf("got\n%s\nwant\n%s", g, w)
		}
		r.cursor++
	}
	return true
}

func mustJSON(ev protocol.Event) []byte {
	b, err := json.Marshal(ev)
	if err != nil {
		panic(err)
	}
	return b
}
