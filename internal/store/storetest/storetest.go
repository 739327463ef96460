// Package storetest holds what every implementation of the store must do: one
// conformance suite, run by the tests of each.
package storetest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"carrel/internal/store"
	"carrel/protocol"
)

// Reader is what [Store.Events] gives.
type Reader interface {
	Next(ctx context.Context) ([]protocol.Event, error)
	Close()
}

// Store is what the suite asks for. The meaning of each method is that of the
// method of [store.Store] of the same name.
type Store interface {
	CreateRun(ctx context.Context, n store.NewRun) (run protocol.Run, existing bool, err error)
	Append(ctx context.Context, ev protocol.Event) error
	Flush(ctx context.Context, runID string) error
	Run(ctx context.Context, runID string) (protocol.Run, error)
	RunOfKey(ctx context.Context, caller, key string) (protocol.Run, error)
	Owner(ctx context.Context, runID string) (userID string, err error)
	Runs(ctx context.Context, q protocol.RunQuery) (protocol.RunPage, error)
	LastSeq(ctx context.Context, runID string) (int64, error)
	Unfinished(ctx context.Context) ([]protocol.Run, error)
	DeleteRunsOf(ctx context.Context, userID string) error
	Prune(ctx context.Context, before time.Time) (int, error)
	Events(ctx context.Context, runID string, after int64) (Reader, error)
	AddCharges(ctx context.Context, charges []store.Charge) error
	SpentToday(ctx context.Context, userID string) (store.Spending, error)
	Close() error
}

// Adapt makes a Store of the concrete one, whose Events returns a concrete
// reader.
func Adapt(s *store.Store) Store { return adapter{s} }

type adapter struct{ *store.Store }

func (a adapter) Events(ctx context.Context, runID string, after int64) (Reader, error) {
	r, err := a.Store.Events(ctx, runID, after)
	if err != nil {
		return nil, err // not r: a nil *Reader in an interface is not nil
	}
	return r, nil
}

// Open makes an empty store that takes the time from clock. The store is closed
// by t.Cleanup at the latest.
type Open func(t *testing.T, clock func() time.Time) Store

// Run runs the suite.
func Run(t *testing.T, open Open) {
	for _, group := range []struct {
		name  string
		cases []testCase
	}{
		{"runs", runCases()},
		{"events", eventCases()},
		{"readers", readerCases()},
		{"deletion", deletionCases()},
		{"charges", chargeCases()},
	} {
		t.Run(group.name, func(t *testing.T) {
			for _, c := range group.cases {
				t.Run(c.name, func(t *testing.T) {
					clock := &Clock{now: epoch}
					c.run(t, open(t, clock.Now), clock)
				})
			}
		})
	}
}

type testCase struct {
	name string
	run  func(t *testing.T, s Store, clock *Clock)
}

// epoch has nanoseconds that no store keeps.
var epoch = time.Date(2026, 1, 2, 3, 4, 5, 678_901_234, time.FixedZone("", 3600))

// Clock is a time that moves only when a test moves it.
type Clock struct {
	mu  sync.Mutex
	now time.Time
}

// Now returns the clock's time.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

// Advance moves the clock.
func (c *Clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// NewRun returns a run to record with the given id.
func NewRun(runID, userID string) store.NewRun {
	return store.NewRun{
		RunID: runID, UserID: userID, SessionID: "s-" + userID, Agent: "shell",
		Request: protocol.ExecuteRequest{UserID: userID, Message: "hello"},
	}
}

// Event returns an event whose data is v.
func Event(runID string, seq int64, typ protocol.EventType, v any) protocol.Event {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err) // a test's own value
	}
	return protocol.Event{
		RunID: runID, Seq: seq, Type: typ, Data: data,
		Time: epoch.Add(time.Duration(seq) * 1_000_100),
	}
}

// Script returns a whole run of n events, at least two: its start, texts, and an
// ending.
func Script(runID string, n int) []protocol.Event {
	events := []protocol.Event{Event(runID, 1, protocol.EventRunStarted, protocol.RunStarted{Agent: "shell"})}
	for seq := int64(2); seq < int64(n); seq++ {
		events = append(events, Event(runID, seq, protocol.EventTextDelta, protocol.TextDelta{Text: fmt.Sprintf("text <%d>", seq)}))
	}
	return append(events, Event(runID, int64(n), protocol.EventRunFinished,
		protocol.Result{RunID: runID, Status: protocol.StatusFinished, Content: "done"}))
}

// Stored returns ev as a store shows it.
func Stored(ev protocol.Event) protocol.Event {
	ev.Time = ev.Time.UTC().Truncate(time.Microsecond)
	return ev
}

func create(t *testing.T, s Store, n store.NewRun) protocol.Run {
	t.Helper()
	run, existing, err := s.CreateRun(t.Context(), n)
	if err != nil || existing {
		t.Fatalf("CreateRun(%s) = existing %v, %v", n.RunID, existing, err)
	}
	return run
}

func appendAll(t *testing.T, s Store, events ...protocol.Event) {
	t.Helper()
	for _, ev := range events {
		if err := s.Append(t.Context(), ev); err != nil {
			t.Fatalf("Append(%s, %d): %v", ev.RunID, ev.Seq, err)
		}
	}
}

func flush(t *testing.T, s Store, runID string) {
	t.Helper()
	if err := s.Flush(t.Context(), runID); err != nil {
		t.Fatalf("Flush(%s): %v", runID, err)
	}
}

func events(t *testing.T, s Store, runID string, after int64) Reader {
	t.Helper()
	r, err := s.Events(t.Context(), runID, after)
	if err != nil {
		t.Fatalf("Events(%s, %d): %v", runID, after, err)
	}
	t.Cleanup(r.Close)
	return r
}

// readAll reads to the end of the run.
func readAll(t *testing.T, r Reader) []protocol.Event {
	t.Helper()
	var all []protocol.Event
	for {
		batch, err := r.Next(t.Context())
		if err == io.EOF { //nolint:errorlint // the promise is io.EOF itself
			return all
		}
		if err != nil {
			t.Fatalf("Next after %d events: %v", len(all), err)
		}
		if len(batch) == 0 {
			t.Fatal("Next returned no events and no error")
		}
		all = append(all, batch...)
	}
}

func wantCode(t *testing.T, err error, code protocol.Code) {
	t.Helper()
	if err == nil || protocol.CodeOf(err) != code {
		t.Errorf("error = %v, want code %s", err, code)
	}
}
