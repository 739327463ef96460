package storetest

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"carrel/protocol"
)

func runCases() []testCase {
	return []testCase{
		{"a created run is read back", createdRunIsReadBack},
		{"a run id is taken once", runIDIsTakenOnce},
		{"an unknown run is not found", unknownRunIsNotFound},
		{"the same key answers with the same run for a day", keyAnswersForADay},
		{"a key belongs to its caller", keyBelongsToCaller},
		{"the same key with another request is a conflict", keyWithOtherRequest},
		{"concurrent creations with one key make one run", concurrentKey},
		{"events move a run through its states", eventsMoveRun},
		{"an ending decides the status", endingDecidesStatus},
		{"pages hold every run once, newest first", pagesHoldEveryRun},
		{"runs created between two pages move none", pagesMissNone},
		{"queries select", queriesSelect},
		{"a bad cursor is refused", badCursorIsRefused},
		{"unfinished runs are those without an ending", unfinishedRuns},
	}
}

func createdRunIsReadBack(t *testing.T, s Store, clock *Clock) {
	n := NewRun("run_1", "ünï/cødé")
	got := create(t, s, n)
	want := protocol.Run{
		RunID: "run_1", UserID: n.UserID, SessionID: n.SessionID, Agent: "shell",
		Status: protocol.StatusQueued, CreatedAt: epoch.UTC().Truncate(time.Microsecond),
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("CreateRun (-want +got):\n%s", d)
	}
	clock.Advance(1500 * time.Millisecond)
	got, err := s.Run(t.Context(), "run_1")
	if err != nil {
		t.Fatal(err)
	}
	want.WaitedMS = 1500
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("Run (-want +got):\n%s", d)
	}
	if owner, err := s.Owner(t.Context(), "run_1"); err != nil || owner != n.UserID {
		t.Errorf("Owner = %q, %v", owner, err)
	}
}

func runIDIsTakenOnce(t *testing.T, s Store, _ *Clock) {
	create(t, s, NewRun("run_1", "ann"))
	_, _, err := s.CreateRun(t.Context(), NewRun("run_1", "bob"))
	wantCode(t, err, protocol.CodeConflict)
	if run, err := s.Run(t.Context(), "run_1"); err != nil || run.UserID != "ann" {
		t.Errorf("Run = %+v, %v; want ann's", run, err)
	}
}

func unknownRunIsNotFound(t *testing.T, s Store, _ *Clock) {
	ctx := t.Context()
	_, err := s.Run(ctx, "run_x")
	wantCode(t, err, protocol.CodeNotFound)
	_, err = s.Owner(ctx, "run_x")
	wantCode(t, err, protocol.CodeNotFound)
	_, err = s.LastSeq(ctx, "run_x")
	wantCode(t, err, protocol.CodeNotFound)
	_, err = s.Events(ctx, "run_x", 0)
	wantCode(t, err, protocol.CodeNotFound)
	wantCode(t, s.Append(ctx, Script("run_x", 2)[0]), protocol.CodeNotFound)
	wantCode(t, s.Flush(ctx, "run_x"), protocol.CodeNotFound)
}

func keyAnswersForADay(t *testing.T, s Store, clock *Clock) {
	n := NewRun("run_1", "ann")
	n.Caller, n.IdempotencyKey = "key-holder", "k"
	runOfKey := func(caller, key, want string) {
		t.Helper()
		run, err := s.RunOfKey(t.Context(), caller, key)
		if want == "" {
			wantCode(t, err, protocol.CodeNotFound)
		} else if err != nil || run.RunID != want {
			t.Errorf("the run of %s's key %s is %s, %v; want %s", caller, key, run.RunID, err, want)
		}
	}
	runOfKey("key-holder", "k", "")
	create(t, s, n)
	runOfKey("key-holder", "k", "run_1")
	runOfKey("another", "k", "")
	runOfKey("key-holder", "another", "")
	appendAll(t, s, Script("run_1", 3)...)
	flush(t, s, "run_1")

	clock.Advance(24*time.Hour - time.Second)
	n.RunID = "run_2"
	run, existing, err := s.CreateRun(t.Context(), n)
	if err != nil || !existing || run.RunID != "run_1" || run.Status != protocol.StatusFinished || run.Result == nil {
		t.Errorf("within a day: %+v, existing %v, %v; want the finished run_1", run, existing, err)
	}
	_, err = s.Run(t.Context(), "run_2")
	wantCode(t, err, protocol.CodeNotFound)

	runOfKey("key-holder", "k", "run_1")
	clock.Advance(time.Second)
	runOfKey("key-holder", "k", "")
	if run := create(t, s, n); run.RunID != "run_2" {
		t.Errorf("after a day: %s, want run_2", run.RunID)
	}
	n.RunID = "run_3"
	if run, existing, err := s.CreateRun(t.Context(), n); err != nil || !existing || run.RunID != "run_2" {
		t.Errorf("then: %s, existing %v, %v; want run_2", run.RunID, existing, err)
	}
}

func keyBelongsToCaller(t *testing.T, s Store, _ *Clock) {
	for i, caller := range []string{"a", "b", ""} {
		n := NewRun(fmt.Sprintf("run_%d", i), "ann")
		n.Caller, n.IdempotencyKey = caller, "k"
		create(t, s, n)
	}
}

func keyWithOtherRequest(t *testing.T, s Store, _ *Clock) {
	n := NewRun("run_1", "ann")
	n.IdempotencyKey = "k"
	create(t, s, n)
	n.RunID, n.Request.Message = "run_2", "something else"
	_, _, err := s.CreateRun(t.Context(), n)
	wantCode(t, err, protocol.CodeConflict)
}

func concurrentKey(t *testing.T, s Store, _ *Clock) {
	const callers = 16
	ids := make([]string, callers)
	var made sync.Map
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			n := NewRun(fmt.Sprintf("run_%d", i), "ann")
			n.IdempotencyKey = "k"
			run, existing, err := s.CreateRun(t.Context(), n)
			if err != nil {
				t.Errorf("CreateRun: %v", err)
			}
			if ids[i] = run.RunID; !existing {
				made.Store(run.RunID, true)
			}
		})
	}
	wg.Wait()
	count := 0
	made.Range(func(any, any) bool { count++; return true })
	if count != 1 {
		t.Errorf("%d runs were made, want 1", count)
	}
	for _, id := range ids {
		if id != ids[0] {
			t.Errorf("answers differ: %v", ids)
			break
		}
	}
}

func eventsMoveRun(t *testing.T, s Store, _ *Clock) {
	create(t, s, NewRun("run_1", "ann"))
	script := Script("run_1", 4)
	appendAll(t, s, script[:2]...)
	flush(t, s, "run_1")
	run, err := s.Run(t.Context(), "run_1")
	if err != nil {
		t.Fatal(err)
	}
	started := Stored(script[0]).Time
	if run.Status != protocol.StatusRunning || run.LastSeq != 2 || run.StartedAt == nil || !run.StartedAt.Equal(started) || run.EndedAt != nil {
		t.Errorf("while going: %+v", run)
	}
	appendAll(t, s, script[2:]...)
	flush(t, s, "run_1")
	if run, err = s.Run(t.Context(), "run_1"); err != nil {
		t.Fatal(err)
	}
	ended := Stored(script[3]).Time
	want := protocol.Run{
		RunID: "run_1", UserID: "ann", SessionID: "s-ann", Agent: "shell", Status: protocol.StatusFinished,
		CreatedAt: run.CreatedAt, StartedAt: &started, EndedAt: &ended, LastSeq: 4, WaitedMS: 1,
		Result: &protocol.Result{RunID: "run_1", Status: protocol.StatusFinished, Content: "done", ToolCalls: []protocol.ToolCall{}},
	}
	if d := cmp.Diff(want, run); d != "" {
		t.Errorf("after the end (-want +got):\n%s", d)
	}
}

func endingDecidesStatus(t *testing.T, s Store, _ *Clock) {
	for code, want := range map[protocol.Code]protocol.RunStatus{ //nolint:exhaustive // a choice of them
		protocol.CodeCanceled:    protocol.StatusCanceled,
		protocol.CodeInterrupted: protocol.StatusInterrupted,
		protocol.CodeRunTimeout:  protocol.StatusFailed,
	} {
		id := "run_" + string(code)
		create(t, s, NewRun(id, "ann"))
		runErr := protocol.RunError{Code: code, Message: "so it ended", Cause: &protocol.ExitCause{Signal: "SIGKILL"}}
		appendAll(t, s, Event(id, 1, protocol.EventRunError, runErr))
		flush(t, s, id)
		run, err := s.Run(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if run.Status != want || run.StartedAt != nil || run.EndedAt == nil || run.Result != nil {
			t.Errorf("%s: %+v, want status %s", code, run, want)
		}
		if d := cmp.Diff(&runErr, run.Error); d != "" {
			t.Errorf("%s: error (-want +got):\n%s", code, d)
		}
	}
}

func pagesHoldEveryRun(t *testing.T, s Store, _ *Clock) {
	const runs = 57
	var want []string
	for i := range runs {
		create(t, s, NewRun(fmt.Sprintf("run_%d", i), "ann"))
		want = append(want, fmt.Sprintf("run_%d", runs-1-i))
	}
	for _, c := range []struct{ limit, first int }{{0, 50}, {1, 1}, {7, 7}, {runs, runs}, {10_000, runs}} {
		pages := allPages(t, s, protocol.RunQuery{UserID: "ann", Limit: c.limit}, func() {})
		if n := len(pages[0]); n != c.first {
			t.Errorf("limit %d: the first page holds %d runs, want %d", c.limit, n, c.first)
		}
		if d := cmp.Diff(want, slices.Concat(pages...)); d != "" {
			t.Errorf("limit %d (-want +got):\n%s", c.limit, d)
		}
	}
}

func pagesMissNone(t *testing.T, s Store, _ *Clock) {
	for i := range 5 {
		create(t, s, NewRun(fmt.Sprintf("run_%d", i), "ann"))
	}
	late := 0
	pages := allPages(t, s, protocol.RunQuery{Limit: 2}, func() {
		late++
		create(t, s, NewRun(fmt.Sprintf("run_late%d", late), "ann"))
	})
	want := [][]string{{"run_4", "run_3"}, {"run_2", "run_1"}, {"run_0"}}
	if d := cmp.Diff(want, pages); d != "" {
		t.Errorf("pages (-want +got):\n%s", d)
	}
}

// allPages returns the run ids page by page, and calls between after each page.
func allPages(t *testing.T, s Store, q protocol.RunQuery, between func()) [][]string {
	t.Helper()
	var pages [][]string
	for {
		page, err := s.Runs(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		pages = append(pages, runIDs(page))
		if page.NextCursor == "" {
			return pages
		}
		q.Cursor = page.NextCursor
		between()
	}
}

func runIDs(page protocol.RunPage) []string {
	var ids []string
	for _, run := range page.Runs {
		ids = append(ids, run.RunID)
	}
	return ids
}

func queriesSelect(t *testing.T, s Store, _ *Clock) {
	for i, user := range []string{"ann", "bob", "ann", "bob", "ann"} {
		n := NewRun(fmt.Sprintf("run_%d", i), user)
		n.SessionID = fmt.Sprintf("s%d", i%2)
		create(t, s, n)
	}
	appendAll(t, s, Script("run_2", 2)...)
	flush(t, s, "run_2")
	for _, c := range []struct {
		q    protocol.RunQuery
		want []string
	}{
		{protocol.RunQuery{}, []string{"run_4", "run_3", "run_2", "run_1", "run_0"}},
		{protocol.RunQuery{UserID: "ann"}, []string{"run_4", "run_2", "run_0"}},
		{protocol.RunQuery{SessionID: "s1"}, []string{"run_3", "run_1"}},
		{protocol.RunQuery{UserID: "ann", SessionID: "s1"}, nil},
		{protocol.RunQuery{Status: protocol.StatusFinished}, []string{"run_2"}},
		{protocol.RunQuery{UserID: "ann", Status: protocol.StatusQueued, Limit: 1}, []string{"run_4"}},
		{protocol.RunQuery{UserID: "' OR 1=1 --"}, nil},
	} {
		page, err := s.Runs(t.Context(), c.q)
		if err != nil {
			t.Fatalf("%+v: %v", c.q, err)
		}
		if page.Runs == nil {
			t.Errorf("%+v: the runs are nil, which is null in JSON", c.q)
		}
		if d := cmp.Diff(c.want, runIDs(page)); d != "" {
			t.Errorf("%+v (-want +got):\n%s", c.q, d)
		}
	}
}

func badCursorIsRefused(t *testing.T, s Store, _ *Clock) {
	for i := range 3 {
		create(t, s, NewRun(fmt.Sprintf("run_%d", i), "ann"))
	}
	page, err := s.Runs(t.Context(), protocol.RunQuery{UserID: "ann", Limit: 1})
	if err != nil || page.NextCursor == "" {
		t.Fatalf("first page: %+v, %v", page, err)
	}
	good := page.NextCursor
	bad := []protocol.RunQuery{
		{UserID: "bob", Cursor: good},
		{Cursor: good},
		{UserID: "ann", Cursor: "x"},
		{UserID: "ann", Cursor: "1 OR 1=1"},
		{UserID: "ann", Cursor: good + "A"},
		{UserID: "ann", Cursor: good[:len(good)-1]},
		{UserID: "ann", Limit: -1},
	}
	for i := range good {
		b := []byte(good)
		if b[i]++; b[i] > 'z' {
			b[i] = 'A'
		}
		bad = append(bad, protocol.RunQuery{UserID: "ann", Cursor: string(b)})
	}
	for _, q := range bad {
		_, err := s.Runs(t.Context(), q)
		wantCode(t, err, protocol.CodeInvalidRequest)
	}
}

func unfinishedRuns(t *testing.T, s Store, _ *Clock) {
	for i := range 4 {
		create(t, s, NewRun(fmt.Sprintf("run_%d", i), "ann"))
	}
	appendAll(t, s, Script("run_0", 5)...)
	appendAll(t, s, Script("run_2", 5)[:3]...)
	appendAll(t, s, Event("run_3", 1, protocol.EventRunError, protocol.RunError{Code: protocol.CodeWorkerStartFailed}))
	for i := range 4 {
		flush(t, s, fmt.Sprintf("run_%d", i))
	}
	runs, err := s.Unfinished(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]int64{}
	for _, run := range runs {
		got[run.RunID] = run.LastSeq
	}
	if d := cmp.Diff(map[string]int64{"run_1": 0, "run_2": 3}, got); d != "" {
		t.Errorf("unfinished runs and their last events (-want +got):\n%s", d)
	}
}
