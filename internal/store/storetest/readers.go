package storetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"carrel/protocol"
)

func readerCases() []testCase {
	return []testCase{
		{"a reader that joins anywhere sees every event once", joinAnywhere},
		{"a reader of an ended run starts after any number", startAnywhere},
		{"a reader beyond a live run waits for later events only", beyondLive},
		{"a reader beyond the end of a live run ends with it", beyondEnd},
		{"a reader waits no longer than its context", waitsForContext},
		{"a reader can go on after its context has ended", goesOnAfterContext},
		{"a batch is bounded", batchIsBounded},
		{"a slow reader holds up neither run nor reader", slowReader},
		{"a closed reader is at its end", closedReader},
		{"a negative number is refused", negativeNumber},
	}
}

func joinAnywhere(t *testing.T, s Store, _ *Clock) {
	const total, readers = 3000, 40
	create(t, s, NewRun("run_1", "ann"))
	script := Script("run_1", total)
	var wg sync.WaitGroup
	join := func(after int64) {
		wg.Go(func() {
			r, err := s.Events(t.Context(), "run_1", after)
			if err != nil {
				t.Errorf("Events(%d): %v", after, err)
				return
			}
			defer r.Close()
			for next := after + 1; ; {
				batch, err := r.Next(t.Context())
				if err == io.EOF { //nolint:errorlint // the promise is io.EOF itself
					if next != total+1 {
						t.Errorf("the reader after %d ended before event %d", after, next)
					}
					return
				}
				if err != nil {
					t.Errorf("Next: %v", err)
					return
				}
				for _, ev := range batch {
					if ev.Seq != next {
						t.Errorf("the reader after %d got event %d, want %d", after, ev.Seq, next)
						return
					}
					next++
				}
			}
		})
	}
	for i, ev := range script {
		if i%(total/readers) == 0 {
			join(0)
			join(int64(i / 2))
			join(int64(i))
		}
		appendAll(t, s, ev)
	}
	wg.Wait()
}

func startAnywhere(t *testing.T, s Store, _ *Clock) {
	create(t, s, NewRun("run_1", "ann"))
	script := Script("run_1", 9)
	appendAll(t, s, script...)
	flush(t, s, "run_1")
	for after := range int64(12) {
		r := events(t, s, "run_1", after)
		wantEvents(t, script[min(after, 9):], readAll(t, r))
		if _, err := r.Next(t.Context()); err != io.EOF { //nolint:errorlint // the promise is io.EOF itself
			t.Errorf("Next after the end = %v, want io.EOF", err)
		}
	}
}

func beyondLive(t *testing.T, s Store, _ *Clock) {
	create(t, s, NewRun("run_1", "ann"))
	script := Script("run_1", 9)
	appendAll(t, s, script[:2]...)
	flush(t, s, "run_1")
	r := events(t, s, "run_1", 5)
	appendAll(t, s, script[2:]...)
	wantEvents(t, script[5:], readAll(t, r))
}

func beyondEnd(t *testing.T, s Store, _ *Clock) {
	create(t, s, NewRun("run_1", "ann"))
	r := events(t, s, "run_1", 100)
	appendAll(t, s, Script("run_1", 9)...)
	wantEvents(t, nil, readAll(t, r))
}

func waitsForContext(t *testing.T, s Store, _ *Clock) {
	create(t, s, NewRun("run_1", "ann"))
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("the client has gone")
	cancel(gone)
	_, err := events(t, s, "run_1", 0).Next(ctx)
	if !errors.Is(err, context.Canceled) || !errors.Is(err, gone) {
		t.Errorf("Next = %v, want one that is both canceled and its cause", err)
	}
}

func goesOnAfterContext(t *testing.T, s Store, _ *Clock) {
	create(t, s, NewRun("run_1", "ann"))
	r := events(t, s, "run_1", 0)
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, ev := range Script("run_1", 5) {
		if _, err := r.Next(canceled); !errors.Is(err, context.Canceled) {
			t.Fatalf("Next = %v, want canceled", err)
		}
		appendAll(t, s, ev)
		if got, err := r.Next(t.Context()); err != nil || len(got) != 1 || got[0].Seq != ev.Seq {
			t.Fatalf("Next = %v, %v; want event %d", got, err, ev.Seq)
		}
	}
}

func batchIsBounded(t *testing.T, s Store, _ *Clock) {
	create(t, s, NewRun("run_1", "ann"))
	script := Script("run_1", 1600)
	for i := 1500; i < 1508; i++ {
		script[i].Data = object(700 << 10)
	}
	appendAll(t, s, script...)
	flush(t, s, "run_1")
	r := events(t, s, "run_1", 0)
	var got []protocol.Event
	for {
		batch, err := r.Next(t.Context())
		if err == io.EOF { //nolint:errorlint // the promise is io.EOF itself
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		bytes := 0
		for _, ev := range batch {
			bytes += len(ev.Data)
		}
		if len(batch) > 512 || bytes > 2<<20 {
			t.Errorf("a batch of %d events, %d bytes", len(batch), bytes)
		}
		got = append(got, batch...)
	}
	wantEvents(t, script, got)
}

func slowReader(t *testing.T, s Store, _ *Clock) {
	const total = 20_000 // more than any queue between them holds
	create(t, s, NewRun("run_1", "ann"))
	slow, quick := events(t, s, "run_1", 0), events(t, s, "run_1", 0)
	script := Script("run_1", total)
	appendAll(t, s, script[:1]...)
	first, err := slow.Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	appendAll(t, s, script[1:]...)
	wantEvents(t, script, readAll(t, quick))
	wantEvents(t, script, append(first, readAll(t, slow)...))
}

func closedReader(t *testing.T, s Store, _ *Clock) {
	create(t, s, NewRun("run_1", "ann"))
	appendAll(t, s, Script("run_1", 3)...)
	r := events(t, s, "run_1", 0)
	r.Close()
	r.Close()
	if _, err := r.Next(t.Context()); err != io.EOF { //nolint:errorlint // the promise is io.EOF itself
		t.Errorf("Next = %v, want io.EOF", err)
	}
}

func negativeNumber(t *testing.T, s Store, _ *Clock) {
	create(t, s, NewRun("run_1", "ann"))
	_, err := s.Events(t.Context(), "run_1", -1)
	wantCode(t, err, protocol.CodeInvalidRequest)
}

func deletionCases() []testCase {
	return []testCase{
		{"a deleted user's runs are gone, the others are not", deletedUser},
		{"deleting a live run ends its readers and appends", deletedLive},
		{"a deleted id and its key can be used again", deletedIDIsFree},
		{"pruning takes ended runs of before only", prune},
	}
}

func deletedUser(t *testing.T, s Store, _ *Clock) {
	const each = 5000 // more than one step of the deletion takes
	for _, user := range []string{"ann", "bob"} {
		create(t, s, NewRun("run_"+user, user))
		appendAll(t, s, Script("run_"+user, each)...)
		flush(t, s, "run_"+user)
	}
	r := events(t, s, "run_ann", 0)
	if err := s.DeleteRunsOf(t.Context(), "ann"); err != nil {
		t.Fatal(err)
	}
	unknown(t, s, "run_ann")
	_, err := r.Next(t.Context())
	wantCode(t, err, protocol.CodeNotFound)
	wantEvents(t, Script("run_bob", each), readAll(t, events(t, s, "run_bob", 0)))
	if err := s.DeleteRunsOf(t.Context(), "nobody"); err != nil {
		t.Error(err)
	}
}

func unknown(t *testing.T, s Store, runID string) {
	t.Helper()
	_, err := s.Run(t.Context(), runID)
	wantCode(t, err, protocol.CodeNotFound)
	_, err = s.Events(t.Context(), runID, 0)
	wantCode(t, err, protocol.CodeNotFound)
}

func deletedLive(t *testing.T, s Store, _ *Clock) {
	create(t, s, NewRun("run_1", "ann"))
	script := Script("run_1", 5)
	appendAll(t, s, script[:2]...)
	flush(t, s, "run_1")
	r := events(t, s, "run_1", 2)
	waited := make(chan error, 1)
	go func() {
		_, err := r.Next(t.Context())
		waited <- err
	}()
	if err := s.DeleteRunsOf(t.Context(), "ann"); err != nil {
		t.Fatal(err)
	}
	wantCode(t, <-waited, protocol.CodeNotFound)
	wantCode(t, s.Append(t.Context(), script[2]), protocol.CodeNotFound)
	unknown(t, s, "run_1")
}

func deletedIDIsFree(t *testing.T, s Store, _ *Clock) {
	n := NewRun("run_1", "ann")
	n.IdempotencyKey = "k"
	for range 2 {
		create(t, s, n)
		script := Script("run_1", 5)
		appendAll(t, s, script...)
		flush(t, s, "run_1")
		wantEvents(t, script, readAll(t, events(t, s, "run_1", 0)))
		if err := s.DeleteRunsOf(t.Context(), "ann"); err != nil {
			t.Fatal(err)
		}
	}
}

func prune(t *testing.T, s Store, clock *Clock) {
	const old = 600 // more than one step of the deletion takes
	for i := range old {
		runID := fmt.Sprintf("run_old%d", i)
		create(t, s, NewRun(runID, "ann"))
		appendAll(t, s, Script(runID, 3)...)
	}
	for i := range old {
		flush(t, s, fmt.Sprintf("run_old%d", i))
	}
	create(t, s, NewRun("run_live", "ann"))
	appendAll(t, s, Script("run_live", 3)[:2]...)
	clock.Advance(time.Hour)
	create(t, s, NewRun("run_new", "ann"))
	for _, ev := range Script("run_new", 2) {
		ev.Time = clock.Now()
		appendAll(t, s, ev)
	}
	flush(t, s, "run_new")
	for _, want := range []int{old, 0} {
		if n, err := s.Prune(t.Context(), clock.Now()); err != nil || n != want {
			t.Errorf("Prune = %d, %v; want %d", n, err, want)
		}
	}
	unknown(t, s, "run_old0")
	page, err := s.Runs(t.Context(), protocol.RunQuery{})
	if err != nil || len(page.Runs) != 2 {
		t.Errorf("left are %v, %v; want run_new and run_live", runIDs(page), err)
	}
}
