package store_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"carrel/internal/store"
	"carrel/internal/store/storetest"
	"carrel/protocol"
)

// childVariable makes the test binary the child of TestWhatWasAcknowledgedSurvivesKill.
const childVariable = "CARREL_STORE_TEST_CHILD"

func TestMain(m *testing.M) {
	if path := os.Getenv(childVariable); path != "" {
		os.Exit(appendForEver(path))
	}
	goleak.VerifyTestMain(m)
}

func TestSQLiteConforms(t *testing.T) {
	storetest.Run(t, func(t *testing.T, clock func() time.Time) storetest.Store {
		return storetest.Adapt(openAt(t, newPath(t), clock))
	})
}

func newPath(t testing.TB) string { return filepath.Join(t.TempDir(), "carrel.db") }

func openAt(t testing.TB, path string, clock func() time.Time) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), store.Options{URL: "sqlite:" + path, Clock: clock})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}

func open(t testing.TB) *store.Store {
	t.Helper()
	return openAt(t, newPath(t), nil)
}

func create(t testing.TB, s *store.Store, runID string) {
	t.Helper()
	if _, _, err := s.CreateRun(t.Context(), storetest.NewRun(runID, "ann")); err != nil {
		t.Fatalf("CreateRun(%s): %v", runID, err)
	}
}

func appendAll(t testing.TB, s *store.Store, events ...protocol.Event) {
	t.Helper()
	for _, ev := range events {
		if err := s.Append(t.Context(), ev); err != nil {
			t.Fatalf("Append(%s, %d): %v", ev.RunID, ev.Seq, err)
		}
	}
}

func flush(t testing.TB, s *store.Store, runID string) {
	t.Helper()
	if err := s.Flush(t.Context(), runID); err != nil {
		t.Fatalf("Flush(%s): %v", runID, err)
	}
}

// checkSeqs reads the events after that number up to event last, and fails where
// one is missing or comes twice.
func checkSeqs(t testing.TB, s *store.Store, runID string, after, last int64) {
	t.Helper()
	r, err := s.Events(t.Context(), runID, after)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for next := after + 1; next <= last; {
		batch, err := r.Next(t.Context())
		if err != nil {
			t.Fatalf("run %s: Next before event %d: %v", runID, next, err)
		}
		for _, ev := range batch {
			if ev.Seq != next {
				t.Fatalf("run %s: event %d, want %d", runID, ev.Seq, next)
			}
			next++
		}
	}
}

func TestEndedRunsLeaveMemory(t *testing.T) {
	s := open(t)
	for i := range 20 {
		runID := fmt.Sprintf("run_%d", i)
		create(t, s, runID)
		appendAll(t, s, storetest.Script(runID, 3)...)
		flush(t, s, runID)
		checkSeqs(t, s, runID, 0, 3)
	}
	// The writer forgets a run just after it has shown its end; a further write
	// comes after that.
	create(t, s, "run_last")
	if n := s.Tracks(); n != 1 {
		t.Errorf("%d runs are in memory, want only the one that goes on", n)
	}
}

func TestRequestIsKeptAndDeletedWithItsRun(t *testing.T) {
	s := open(t)
	create(t, s, "run_1")
	const query = `SELECT count(*) FROM requests WHERE json(body) = '{"user_id":"ann","message":"hello"}'`
	if n, err := s.Count(t.Context(), query); err != nil || n != 1 {
		t.Errorf("%d requests, %v; want 1", n, err)
	}
	if err := s.DeleteRunsOf(t.Context(), "ann"); err != nil {
		t.Fatal(err)
	}
	for _, table := range []string{"runs", "requests", "events", "idempotency_keys", "removed"} {
		if n, err := s.Count(t.Context(), "SELECT count(*) FROM "+table); err != nil || n != 0 {
			t.Errorf("%s holds %d rows after the deletion, %v", table, n, err)
		}
	}
}

func TestInterruptedDeletionIsFinishedByTheNext(t *testing.T) {
	s := open(t)
	create(t, s, "run_1")
	appendAll(t, s, storetest.Script("run_1", 10)...)
	flush(t, s, "run_1")
	for _, query := range []string{"INSERT INTO removed SELECT id FROM runs", "DELETE FROM runs"} {
		if err := s.Exec(t.Context(), query); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := s.Prune(t.Context(), time.Now()); err != nil || n != 0 {
		t.Errorf("Prune = %d, %v", n, err)
	}
	if n, err := s.Count(t.Context(), "SELECT count(*) FROM events"); err != nil || n != 0 {
		t.Errorf("%d events are left, %v", n, err)
	}
}

func TestLongResultsEndAPageEarly(t *testing.T) {
	s := open(t)
	const runs, resultBytes = 12, 1 << 20
	for i := range runs {
		runID := fmt.Sprintf("run_%d", i)
		create(t, s, runID)
		appendAll(t, s, storetest.Event(runID, 1, protocol.EventRunFinished,
			protocol.Result{Content: string(make([]byte, resultBytes/6))})) // \u0000 each
		flush(t, s, runID)
	}
	q, got, pages := protocol.RunQuery{}, 0, 0
	for {
		page, err := s.Runs(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		got += len(page.Runs)
		pages++
		if q.Cursor = page.NextCursor; q.Cursor == "" {
			break
		}
	}
	if got != runs || pages != 2 {
		t.Errorf("%d runs on %d pages, want %d on 2", got, pages, runs)
	}
}

func FuzzCursor(f *testing.F) {
	f.Add("")
	f.Add("AAAA")
	f.Add(store.NewCursor(protocol.RunQuery{}, 1))
	f.Add(store.NewCursor(protocol.RunQuery{UserID: "ann"}, 1<<62))
	f.Fuzz(func(t *testing.T, cursor string) {
		q := protocol.RunQuery{Cursor: cursor}
		row, err := store.ReadCursor(q)
		if err == nil && store.NewCursor(q, row) != cursor {
			t.Errorf("cursor %q gives %d, which has another cursor", cursor, row)
		}
		if err != nil && protocol.CodeOf(err) != protocol.CodeInvalidRequest {
			t.Errorf("error %v, want %s", err, protocol.CodeInvalidRequest)
		}
	})
}
