package storetest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"sync"
	"testing"
	"time"

	"carrel/protocol"
)

func eventCases() []testCase {
	return []testCase{
		{"what is flushed is counted", flushedIsCounted},
		{"a repeat with the same content is done already", repeatIsDone},
		{"a repeat with other content is a conflict", repeatWithOtherContent},
		{"a gap is a conflict", gapIsConflict},
		{"nothing follows an ending", nothingFollowsEnding},
		{"what can never be stored is refused", neverStored},
		{"the largest event is stored", largestEvent},
		{"a live event and its replay are equal to the byte", liveEqualsReplay},
		{"an event without time gets the present one", presentTime},
		{"many runs are stored side by side", manyRuns},
		{"a closed store refuses", closedStoreRefuses},
	}
}

func flushedIsCounted(t *testing.T, s Store, _ *Clock) {
	create(t, s, NewRun("run_1", "ann"))
	flush(t, s, "run_1") // nothing is nothing to wait for
	for i, ev := range Script("run_1", 5) {
		appendAll(t, s, ev)
		flush(t, s, "run_1")
		if seq, err := s.LastSeq(t.Context(), "run_1"); err != nil || seq != int64(i+1) {
			t.Errorf("LastSeq = %d, %v; want %d", seq, err, i+1)
		}
	}
	flush(t, s, "run_1")
}

// atEveryAge calls check with a run whose five first events are queued, stored,
// and stored with the run ended.
func atEveryAge(t *testing.T, s Store, check func(t *testing.T, runID string, script []protocol.Event)) {
	for name, age := range map[string]func(runID string, script []protocol.Event){
		"queued": func(string, []protocol.Event) {},
		"stored": func(runID string, _ []protocol.Event) { flush(t, s, runID) },
		"ended": func(runID string, script []protocol.Event) {
			appendAll(t, s, script[5:]...)
			flush(t, s, runID)
		},
	} {
		runID := "run_" + name
		create(t, s, NewRun(runID, "ann"))
		script := Script(runID, 6)
		appendAll(t, s, script[:5]...)
		age(runID, script)
		check(t, runID, script)
	}
}

func repeatIsDone(t *testing.T, s Store, _ *Clock) {
	atEveryAge(t, s, func(t *testing.T, runID string, script []protocol.Event) {
		for _, ev := range script[:5] {
			ev.Time = ev.Time.Add(time.Hour) // the host stamps it when it comes
			appendAll(t, s, ev)
		}
		flush(t, s, runID)
		appendAll(t, s, script[5])
		appendAll(t, s, script...)
		flush(t, s, runID)
		wantEvents(t, script, readAll(t, events(t, s, runID, 0)))
	})
}

func repeatWithOtherContent(t *testing.T, s Store, _ *Clock) {
	atEveryAge(t, s, func(t *testing.T, runID string, _ []protocol.Event) {
		wantCode(t, s.Append(t.Context(), Event(runID, 3, protocol.EventTextDelta, protocol.TextDelta{Text: "other"})), protocol.CodeConflict)
		wantCode(t, s.Append(t.Context(), Event(runID, 3, protocol.EventThinkingDelta, protocol.TextDelta{Text: "text <3>"})), protocol.CodeConflict)
	})
}

func gapIsConflict(t *testing.T, s Store, _ *Clock) {
	create(t, s, NewRun("run_1", "ann"))
	script := Script("run_1", 6)
	wantCode(t, s.Append(t.Context(), script[1]), protocol.CodeConflict)
	appendAll(t, s, script[:2]...)
	wantCode(t, s.Append(t.Context(), script[3]), protocol.CodeConflict)
	appendAll(t, s, script[2:]...)
	flush(t, s, "run_1")
	wantEvents(t, script, readAll(t, events(t, s, "run_1", 0)))
}

func nothingFollowsEnding(t *testing.T, s Store, _ *Clock) {
	for _, flushed := range []bool{false, true} {
		runID := fmt.Sprintf("run_%v", flushed)
		create(t, s, NewRun(runID, "ann"))
		script := Script(runID, 4)
		appendAll(t, s, script...)
		if flushed {
			flush(t, s, runID)
		}
		wantCode(t, s.Append(t.Context(), Event(runID, 5, protocol.EventUsage, protocol.Usage{})), protocol.CodeConflict)
		wantCode(t, s.Append(t.Context(), Event(runID, 5, protocol.EventRunError, protocol.RunError{})), protocol.CodeConflict)
		flush(t, s, runID)
		wantEvents(t, script, readAll(t, events(t, s, runID, 0)))
	}
}

func neverStored(t *testing.T, s Store, _ *Clock) {
	create(t, s, NewRun("run_1", "ann"))
	good := Script("run_1", 2)[0]
	for name, spoil := range map[string]func(*protocol.Event){
		"number 0":         func(ev *protocol.Event) { ev.Seq = 0 },
		"negative number":  func(ev *protocol.Event) { ev.Seq = -1 },
		"no type":          func(ev *protocol.Event) { ev.Type = "" },
		"no JSON":          func(ev *protocol.Event) { ev.Data = json.RawMessage(`{"a"`) },
		"no JSON object":   func(ev *protocol.Event) { ev.Data = json.RawMessage(`[1]`) },
		"no result":        func(ev *protocol.Event) { ev.Type, ev.Data = protocol.EventRunFinished, json.RawMessage(`{"usage":7}`) },
		"no error":         func(ev *protocol.Event) { ev.Type, ev.Data = protocol.EventRunError, json.RawMessage(`{"code":7}`) },
		"two JSON objects": func(ev *protocol.Event) { ev.Data = json.RawMessage(`{}{}`) },
	} {
		ev := good
		spoil(&ev)
		if err := s.Append(t.Context(), ev); protocol.CodeOf(err) != protocol.CodeInvalidRequest {
			t.Errorf("%s: Append = %v, want %s", name, err, protocol.CodeInvalidRequest)
		}
	}
	huge := good
	huge.Data = object(store4MiB + 1)
	wantCode(t, s.Append(t.Context(), huge), protocol.CodeTooLarge)
	appendAll(t, s, good) // nothing of it stays in the way
}

const store4MiB = protocol.MaxLineBytes

// object returns a JSON object of exactly n bytes.
func object(n int) json.RawMessage {
	const frame = len(`{"text":""}`)
	return json.RawMessage(`{"text":"` + string(bytes.Repeat([]byte("x"), n-frame)) + `"}`)
}

func largestEvent(t *testing.T, s Store, _ *Clock) {
	create(t, s, NewRun("run_1", "ann"))
	script := Script("run_1", 6)
	script[2].Data, script[3].Data = object(store4MiB), object(store4MiB)
	live := events(t, s, "run_1", 0)
	appendAll(t, s, script...)
	wantEvents(t, script, readAll(t, live))
	wantEvents(t, script, readAll(t, events(t, s, "run_1", 0)))
}

func liveEqualsReplay(t *testing.T, s Store, _ *Clock) {
	create(t, s, NewRun("run_1", "ann"))
	live := events(t, s, "run_1", 0)
	script := Script("run_1", 40)
	script[1].Data = nil
	script[2].Data = json.RawMessage("{\"html\" : \"<&>\u2028\",\n \"n\": 1e400}")
	script[3].Time = time.Date(2026, 7, 8, 9, 10, 11, 999_999_999, time.FixedZone("far", -11*3600))
	script[4].Time = time.Now() // with a monotonic clock
	script[5].Type = "SOMETHING_NEW"
	appendAll(t, s, script...)
	shown, err := json.Marshal(readAll(t, live))
	if err != nil {
		t.Fatal(err)
	}
	replayed, err := json.Marshal(readAll(t, events(t, s, "run_1", 0)))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(shown, replayed) {
		t.Errorf("shown:\n%s\nreplayed:\n%s", shown, replayed)
	}
}

func presentTime(t *testing.T, s Store, clock *Clock) {
	create(t, s, NewRun("run_1", "ann"))
	ev := Script("run_1", 2)[0]
	ev.Time = time.Time{}
	appendAll(t, s, ev)
	got, err := events(t, s, "run_1", 0).Next(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if want := clock.Now().UTC().Truncate(time.Microsecond); got[0].Time != want { //nolint:revive // same zone, no monotonic clock
		t.Errorf("time = %v, want %v", got[0].Time, want)
	}
}

func manyRuns(t *testing.T, s Store, _ *Clock) {
	const runs, each = 30, 200
	var wg sync.WaitGroup
	for i := range runs {
		wg.Go(func() {
			runID := fmt.Sprintf("run_%d", i)
			if _, _, err := s.CreateRun(t.Context(), NewRun(runID, "ann")); err != nil {
				t.Errorf("CreateRun: %v", err)
				return
			}
			for _, ev := range Script(runID, each) {
				if err := s.Append(t.Context(), ev); err != nil {
					t.Errorf("Append: %v", err)
					return
				}
			}
			if err := s.Flush(t.Context(), runID); err != nil {
				t.Errorf("Flush: %v", err)
			}
		})
	}
	wg.Wait()
	for i := range runs {
		runID := fmt.Sprintf("run_%d", i)
		wantEvents(t, Script(runID, each), readAll(t, events(t, s, runID, 0)))
	}
}

func closedStoreRefuses(t *testing.T, s Store, _ *Clock) {
	ctx := t.Context()
	create(t, s, NewRun("run_1", "ann"))
	script := Script("run_1", 3)
	appendAll(t, s, script[:2]...)
	r := events(t, s, "run_1", 2)
	if err := s.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	wantCode(t, s.Append(ctx, script[2]), protocol.CodeShuttingDown)
	_, err := r.Next(ctx)
	wantCode(t, err, protocol.CodeShuttingDown)
	_, _, err = s.CreateRun(ctx, NewRun("run_2", "ann"))
	wantCode(t, err, protocol.CodeShuttingDown)
	_, err = s.Run(ctx, "run_1")
	wantCode(t, err, protocol.CodeShuttingDown)
	_, err = s.Runs(ctx, protocol.RunQuery{})
	wantCode(t, err, protocol.CodeShuttingDown)
	_, err = s.Prune(ctx, epoch)
	wantCode(t, err, protocol.CodeShuttingDown)
}

func wantEvents(t *testing.T, want, got []protocol.Event) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%d events, want %d", len(got), len(want))
		return
	}
	for i := range want {
		w, g := Stored(want[i]), got[i]
		if g.RunID != w.RunID || g.Seq != w.Seq || g.Type != w.Type || !g.Time.Equal(w.Time) || !bytes.Equal(g.Data, w.Data) {
			t.Errorf("event %d = %.300v, want %.300v", i, g, w)
			return
		}
	}
}
