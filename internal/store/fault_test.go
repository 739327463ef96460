package store_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"carrel/internal/store"
	"carrel/internal/store/storetest"
	"carrel/protocol"
)

// big returns events that need about 16 pages each.
func big(runID string, from, to int64) []protocol.Event {
	var events []protocol.Event
	for seq := from; seq <= to; seq++ {
		events = append(events, storetest.Event(runID, seq, protocol.EventToolOutput,
			protocol.ToolOutput{Text: strings.Repeat("x", 64<<10)}))
	}
	return events
}

func wantFull(t *testing.T, err error) {
	t.Helper()
	if protocol.CodeOf(err) != protocol.CodeInternal || !strings.Contains(err.Error(), "full") {
		t.Errorf("error = %v, want %s that tells of the full disk", err, protocol.CodeInternal)
	}
	if e, ok := errors.AsType[*protocol.Error](err); ok && e.Err == nil {
		t.Errorf("error %v has no cause", err)
	}
}

func TestFullDiskLosesNothingThatWasShownAndIsRecoveredFrom(t *testing.T) {
	s := open(t)
	ctx := t.Context()
	for _, runID := range []string{"run_1", "run_2"} {
		create(t, s, runID)
		appendAll(t, s, big(runID, 1, 2)...)
		flush(t, s, runID)
	}
	reader, err := s.Events(ctx, "run_1", 2)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.LimitPages(ctx, 4); err != nil {
		t.Fatal(err)
	}

	appendAll(t, s, big("run_1", 3, 3)...)
	wantFull(t, s.Flush(ctx, "run_1"))
	if err := s.Flush(ctx, "run_1"); err != nil {
		t.Errorf("Flush once more = %v; the failure was told, and nothing is left to store", err)
	}
	if seq, err := s.LastSeq(ctx, "run_1"); err != nil || seq != 2 {
		t.Errorf("LastSeq = %d, %v; want 2", seq, err)
	}
	if err := s.Append(ctx, big("run_1", 4, 4)[0]); protocol.CodeOf(err) != protocol.CodeConflict {
		t.Errorf("Append(4) after event 3 was lost = %v, want %s", err, protocol.CodeConflict)
	}
	_, _, err = s.CreateRun(ctx, store.NewRun{
		RunID: "run_3", UserID: "ann", Request: protocol.ExecuteRequest{Message: strings.Repeat("x", 64<<10)},
	})
	wantFull(t, err)
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	if got, err := reader.Next(canceled); !errors.Is(err, context.Canceled) {
		t.Errorf("the reader was shown %d events, %v", len(got), err)
	}

	if err := s.LimitPages(ctx, -1); err != nil {
		t.Fatal(err)
	}
	appendAll(t, s, big("run_1", 3, 5)...)
	appendAll(t, s, big("run_2", 3, 4)...)
	flush(t, s, "run_1")
	flush(t, s, "run_2")
	checkSeqs(t, s, "run_1", 0, 5)
	checkSeqs(t, s, "run_2", 0, 4)
	if got, err := reader.Next(ctx); err != nil || got[0].Seq != 3 {
		t.Errorf("the reader got %.40v, %v; want event 3", got, err)
	}
}

func TestWriteErrorReachesEveryAppendAndFlushThatWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t)
		ctx := t.Context()
		create(t, s, "run_1")
		if err := s.LimitPages(ctx, 0); err != nil {
			t.Fatal(err)
		}
		release := s.Hold(ctx)
		script := storetest.Script("run_1", store.QueueEvents+2)
		appendAll(t, s, script[:store.QueueEvents]...)
		results := make(chan error, 3)
		go func() { results <- s.Append(ctx, script[store.QueueEvents]) }()
		for range 2 {
			go func() { results <- s.Flush(ctx, "run_1") }()
		}
		synctest.Wait()
		if n := len(results); n != 0 {
			t.Errorf("%d calls did not wait for the writer", n)
		}
		release()
		synctest.Wait()
		// The Append found room when the writer took the queue, which it may have
		// done before or after the failure; the Flushes were told.
		told := 0
		for range 3 {
			if err := <-results; err != nil {
				wantFull(t, err)
				told++
			}
		}
		if told < 2 {
			t.Errorf("%d calls were told of the error, want both Flushes at least", told)
		}
		if seq, err := s.LastSeq(ctx, "run_1"); err != nil || seq != 0 {
			t.Errorf("LastSeq = %d, %v; want 0", seq, err)
		}
	})
}

func TestErrorThatNobodyHeardIsToldByClose(t *testing.T) {
	s, err := store.Open(t.Context(), store.Options{URL: "sqlite:" + newPath(t)})
	if err != nil {
		t.Fatal(err)
	}
	create(t, s, "run_1")
	if err := s.LimitPages(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	appendAll(t, s, big("run_1", 1, 1)...)
	err = s.Close()
	wantFull(t, err)
	if err == nil || !strings.Contains(err.Error(), "run_1") {
		t.Errorf("Close = %v, want one that names the run", err)
	}
}

func TestFloodWaitsForTheWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t)
		create(t, s, "run_1")
		create(t, s, "run_2")
		release := s.Hold(t.Context())
		script := storetest.Script("run_1", store.QueueEvents+10)
		appendAll(t, s, script[:store.QueueEvents]...)

		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := s.Append(ctx, script[store.QueueEvents]); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Append to a full queue = %v, want to wait for ctx", err)
		}
		appendAll(t, s, storetest.Script("run_2", 100)...) // has its own queue

		done := make(chan error, 1)
		go func() { done <- s.Append(t.Context(), script[store.QueueEvents]) }()
		synctest.Wait()
		if len(done) != 0 {
			t.Error("Append did not wait for room")
		}
		release()
		if err := <-done; err != nil {
			t.Errorf("Append after there was room: %v", err)
		}
		flush(t, s, "run_1")
		checkSeqs(t, s, "run_1", 0, store.QueueEvents+1)
	})
}

func TestNothingIsShownBeforeItIsStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := open(t)
		create(t, s, "run_1")
		r, err := s.Events(t.Context(), "run_1", 0)
		if err != nil {
			t.Fatal(err)
		}
		release := s.Hold(t.Context())
		appendAll(t, s, storetest.Script("run_1", 2)...)
		shown := make(chan int, 1)
		go func() {
			got, err := r.Next(t.Context())
			if err != nil {
				t.Errorf("Next: %v", err)
			}
			shown <- len(got)
		}()
		synctest.Wait()
		if len(shown) != 0 {
			t.Error("the reader was shown an event that is not stored")
		}
		release()
		if n := <-shown; n != 2 {
			t.Errorf("%d events came at once, want 2", n)
		}
	})
}

func TestTenThousandReadersWait(t *testing.T) {
	s := open(t)
	create(t, s, "run_1")
	const readers, total = 10_000, 30
	results := make(chan error, readers)
	for range readers {
		r, err := s.Events(t.Context(), "run_1", 0)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for next := int64(1); next <= total; {
				batch, err := r.Next(t.Context())
				if err == nil && batch[0].Seq != next {
					err = fmt.Errorf("event %d, want %d", batch[0].Seq, next)
				}
				if err != nil {
					results <- err
					return
				}
				next += int64(len(batch))
			}
			results <- nil
		}()
	}
	for _, ev := range storetest.Script("run_1", total) {
		appendAll(t, s, ev)
		flush(t, s, "run_1")
	}
	for range readers {
		if err := <-results; err != nil {
			t.Fatal(err)
		}
	}
}
