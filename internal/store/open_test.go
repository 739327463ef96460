package store_test

import (
	"bytes"
	"database/sql"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"carrel/internal/store"
	"carrel/internal/store/storetest"
	"carrel/protocol"
)

func TestURLsThatAreNoneAreRefusedWithAReason(t *testing.T) {
	for _, c := range []struct{ url, want string }{
		{"", "must be sqlite:"},
		{"carrel.db", "must be sqlite:"},
		{"mysql://x", "must be sqlite:"},
		{"sqlite:", "a file's path"},
		{"sqlite::memory:", "a file's path"},
		{"sqlite:/x?mode=ro", "without parameters"},
		{"postgres://user:hunter2@db/carrel", "postgres is not supported yet"},
		{"postgresql://user:hunter2@db/carrel", "postgres is not supported yet"},
	} {
		_, err := store.Open(t.Context(), store.Options{URL: c.url})
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("Open(%q) = %v, want one that tells %q and no password", c.url, err, c.want)
		}
	}
}

func TestFilesAreForTheOwnerAlone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made by Open")
	path := filepath.Join(dir, "carrel.db")
	s := openAt(t, path, nil)
	create(t, s, "run_1")
	wantMode := func(path string, want os.FileMode) {
		t.Helper()
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v; want mode %v", path, info.Mode(), err, want)
		}
	}
	wantMode(dir, 0o700)
	for _, suffix := range []string{"", "-wal", "-shm"} {
		wantMode(path+suffix, 0o600)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	openAt(t, path, nil)
	wantMode(path, 0o600)
}

func TestAnyPathCanBeOpened(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a b.db", "50%41.db", "#x&y=z;.db", "ünï.db", "'q\".db"} {
		s := openAt(t, filepath.Join(dir, name), nil)
		create(t, s, "run_1")
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
	t.Chdir(dir)
	openAt(t, "relative.db", nil)
	if _, err := os.Stat(filepath.Join(dir, "relative.db")); err != nil {
		t.Error(err)
	}
}

func TestWhatIsNoDatabaseIsRefused(t *testing.T) {
	path := newPath(t)
	if err := os.WriteFile(path, bytes.Repeat([]byte("no database\n"), 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := store.Open(t.Context(), store.Options{URL: "sqlite:" + path}); err == nil {
		t.Error("Open took a text file", s.Close())
	}
}

func TestNewerDatabaseIsRefused(t *testing.T) {
	path := newPath(t)
	s := openAt(t, path, nil)
	create(t, s, "run_1")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close() //nolint:errcheck // closed below where it matters
	if _, err := db.ExecContext(t.Context(), "INSERT INTO goose_db_version (version_id, is_applied) VALUES (999, 1)"); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = store.Open(t.Context(), store.Options{URL: "sqlite:" + path})
	if err == nil || !strings.Contains(err.Error(), "newer version of carrel") {
		t.Errorf("Open = %v, want a refusal that tells of the newer version", err)
	}
}

func TestMigrationIsLoggedOnce(t *testing.T) {
	var log bytes.Buffer
	o := store.Options{URL: "sqlite:" + newPath(t), Logger: slog.New(slog.NewTextHandler(&log, nil))}
	for range 2 {
		s, err := store.Open(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if n := strings.Count(log.String(), "migrated"); n != 1 {
		t.Errorf("the log tells of %d migrations, want 1:\n%s", n, &log)
	}
}

func TestRunsGoOnAfterReopening(t *testing.T) {
	path := newPath(t)
	script := storetest.Script("run_1", 9)
	for i := range 9 {
		s := openAt(t, path, nil)
		if i == 0 {
			create(t, s, "run_1")
		}
		runs, err := s.Unfinished(t.Context())
		if err != nil || len(runs) != 1 || runs[0].LastSeq != int64(i) {
			t.Fatalf("Unfinished = %+v, %v; want run_1 at event %d", runs, err, i)
		}
		appendAll(t, s, script[max(0, i-1):i+1]...) // the last of before once more
		if err := s.Close(); err != nil {           // without Flush
			t.Fatal(err)
		}
	}
	s := openAt(t, path, nil)
	checkSeqs(t, s, "run_1", 0, 9)
	if runs, err := s.Unfinished(t.Context()); err != nil || len(runs) != 0 {
		t.Errorf("Unfinished = %+v, %v; want none", runs, err)
	}
}

func TestSeveralStoresOpenOneNewDatabase(t *testing.T) {
	path := newPath(t)
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			s, err := store.Open(t.Context(), store.Options{URL: "sqlite:" + path})
			if err != nil {
				t.Errorf("Open: %v", err)
				return
			}
			runID := fmt.Sprintf("run_%d", i)
			if _, _, err := s.CreateRun(t.Context(), storetest.NewRun(runID, "ann")); err != nil {
				t.Errorf("CreateRun: %v", err)
			}
			for _, ev := range storetest.Script(runID, 500) {
				if err := s.Append(t.Context(), ev); err != nil {
					t.Errorf("Append: %v", err)
				}
			}
			if err := s.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		})
	}
	wg.Wait()
	s := openAt(t, path, nil)
	for i := range 6 {
		checkSeqs(t, s, fmt.Sprintf("run_%d", i), 0, 500)
	}
}

func TestSecondProcessCannotAppendToTheSameRun(t *testing.T) {
	path := newPath(t)
	first, second := openAt(t, path, nil), openAt(t, path, nil)
	create(t, first, "run_1")
	script := storetest.Script("run_1", 5)
	appendAll(t, first, script[0])
	flush(t, first, "run_1")
	appendAll(t, second, script[1])
	flush(t, second, "run_1")

	other := storetest.Event("run_1", 2, protocol.EventUsage, protocol.Usage{})
	appendAll(t, first, other)
	// The writer may have found out, and forgotten the run, before this Flush.
	if err := first.Flush(t.Context(), "run_1"); err != nil && protocol.CodeOf(err) != protocol.CodeConflict {
		t.Errorf("Flush = %v, want %s", err, protocol.CodeConflict)
	}
	// It finds out what is stored, and could go on from there.
	if seq, err := first.LastSeq(t.Context(), "run_1"); err != nil || seq != 2 {
		t.Errorf("LastSeq = %d, %v; want 2", seq, err)
	}
	// Whoever is quicker than the writer is told of the conflict once more.
	err := first.Append(t.Context(), script[2])
	for protocol.CodeOf(err) == protocol.CodeConflict && t.Context().Err() == nil {
		err = first.Append(t.Context(), script[2])
	}
	if err != nil {
		t.Fatalf("Append = %v", err)
	}
	appendAll(t, first, script[3:]...)
	flush(t, first, "run_1")
	checkSeqs(t, first, "run_1", 0, 5)
	reader, err := first.Events(t.Context(), "run_1", 1)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if events, err := reader.Next(t.Context()); err != nil || events[0].Type == protocol.EventUsage {
		t.Errorf("the second event is %v, %v: not the first that came", events, err)
	}
}
