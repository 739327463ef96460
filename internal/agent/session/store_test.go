package session

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"carrel/protocol"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestSessionGoesOnInALaterWorker(t *testing.T) {
	home, _ := newHome(t)
	first := open(t, NewStore(home), "s")
	if got := first.Messages(); len(got) != 0 {
		t.Fatalf("a new session begins with %d messages", len(got))
	}
	want := []Message{text(User, "a <question> & more"), {Role: Assistant, Content: text(Assistant, "an answer").Content, Tokens: 120, Dir: "/workspace/x"}}
	must(t, first.Append("run_1", want...))
	first.Close()

	second := open(t, NewStore(home), "s")
	defer second.Close()
	if second.Dir() != "/workspace/x" {
		t.Errorf("the shell was in %q", second.Dir())
	}
	if diff := cmp.Diff(want, second.Messages()); diff != "" {
		t.Error(diff)
	}
	must(t, second.Append("run_2", text(User, "next")))
	lines, err := Read(home, "s")
	if err != nil || len(lines) != 3 || parsed(t, lines[0]).RunID != "run_1" || parsed(t, lines[2]).RunID != "run_2" || parsed(t, lines[2]).Time.IsZero() {
		t.Errorf("%v %s", err, lines)
	}
}

func TestSessionThatSaidNothingLeavesNoFile(t *testing.T) {
	home, _ := newHome(t)
	open(t, NewStore(home), "s").Close()
	if infos, err := List(home); err != nil || len(infos) != 0 {
		t.Errorf("%v %v", infos, err)
	}
}

func TestTornLastLineIsCutOff(t *testing.T) {
	for name, torn := range map[string]string{
		"half a line": `{"role":"user","content":[{"ty`, "a line without its end": `{"role":"user","content":[{}]}`, "zeros": "\x00\x00\x00",
	} {
		t.Run(name, func(t *testing.T) {
			home, dir := newHome(t)
			s := open(t, NewStore(home), "s")
			must(t, s.Append("run_1", text(User, "a"), text(Assistant, "b")))
			s.Close()
			file := filepath.Join(dir, "sessions", "s.jsonl")
			whole := read(t, file)
			must(t, os.WriteFile(file, []byte(whole+torn), 0o600))

			s = open(t, NewStore(home), "s")
			if got := read(t, file); len(s.Messages()) != 2 || got != whole {
				t.Errorf("%d messages; the file has %q", len(s.Messages()), got)
			}
			must(t, s.Append("run_2", text(User, "c")))
			s.Close()
			if lines, err := Read(home, "s"); err != nil || len(lines) != 3 {
				t.Errorf("%d lines, %v", len(lines), err)
			}
		})
	}
}

func TestBrokenLineIsRefused(t *testing.T) {
	good := `{"role":"user","content":[{"type":"text","text":"a"}]}` + "\n"
	for name, data := range map[string]string{
		"no JSON":                good + "nonsense\n" + good,
		"last, but whole":        good + "{}\n",
		"unknown role":           `{"role":"system","content":[{}]}` + "\n",
		"message and summary":    `{"role":"user","content":[{}],"summary":"x","replaces":1}` + "\n",
		"summary of more":        good + `{"summary":"x","replaces":2}` + "\n",
		"summary of less than 1": good + `{"summary":"x","replaces":-1}` + "\n",
	} {
		t.Run(name, func(t *testing.T) {
			home, dir := newHome(t)
			must(t, os.Mkdir(filepath.Join(dir, "sessions"), 0o700))
			must(t, os.WriteFile(filepath.Join(dir, "sessions", "s.jsonl"), []byte(data), 0o600))
			_, err := NewStore(home).Open(t.Context(), "s")
			if protocol.CodeOf(err) != protocol.CodeConflict || !strings.Contains(err.Error(), "line ") {
				t.Errorf("%v, want a conflict that names the line", err)
			}
		})
	}
}

func TestCallsWithoutResultsAreCompleted(t *testing.T) {
	home, _ := newHome(t)
	s := open(t, NewStore(home), "s")
	must(t, s.Append("run_1", text(User, "a"), Message{Role: Assistant, Content: []rawBlock{
		rawBlock(`{"type":"text","text":"x"}`), rawBlock(`{"type":"tool_use","id":"t1","name":"bash","input":{}}`),
		rawBlock(`{"type":"tool_use","id":"t2","name":"bash","input":{}}`),
	}}))
	s.Close()
	for range 2 { // it is completed once, and on disk
		s = open(t, NewStore(home), "s")
		got := s.Messages()
		s.Close()
		want := Message{Role: User, Content: []rawBlock{ResultBlock("t1", lost, true), ResultBlock("t2", lost, true)}}
		if len(got) != 3 {
			t.Fatalf("%d messages", len(got))
		}
		if diff := cmp.Diff(want, got[2]); diff != "" {
			t.Error(diff)
		}
	}
}

func TestSummaryTakesThePlaceOfTheBeginning(t *testing.T) {
	home, _ := newHome(t)
	s := open(t, NewStore(home), "s")
	must(t, s.Append("run_1", text(User, "a"), Message{Role: Assistant, Content: text(User, "b").Content, Tokens: 9}, text(User, "c")))
	must(t, s.Summarize("run_1", "they met", 1))
	want := []Message{text(User, summaryNote+"they met"), text(Assistant, "b"), text(User, "c")}
	if diff := cmp.Diff(want, s.Messages()); diff != "" {
		t.Error(diff)
	}
	s.Close()
	s = open(t, NewStore(home), "s")
	defer s.Close()
	if diff := cmp.Diff(want, s.Messages()); diff != "" {
		t.Error(diff)
	}
	if lines, err := Read(home, "s"); err != nil || len(lines) != 4 {
		t.Errorf("the transcript has %d lines, %v: it keeps what was summarised", len(lines), err)
	}
}

func TestRunsOfOneSessionTakeTurns(t *testing.T) {
	home, _ := newHome(t)
	store := NewStore(home)
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			s, err := store.Open(t.Context(), "s")
			if err != nil {
				t.Error(err)
				return
			}
			defer s.Close()
			if err := s.Append("r", text(User, "q"), text(Assistant, "a")); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	lines, err := Read(home, "s")
	if err != nil || len(lines) != 40 {
		t.Fatalf("%d lines, %v", len(lines), err)
	}
	for i, l := range lines {
		if want := []Role{User, Assistant}[i%2]; parsed(t, l).Role != want {
			t.Errorf("line %d: %s", i, l)
		}
	}
	if len(store.turns) != 0 {
		t.Errorf("%d sessions are still taken", len(store.turns))
	}
}

func TestWaitingForATurnEndsWithItsContext(t *testing.T) {
	home, _ := newHome(t)
	store := NewStore(home)
	held := open(t, store, "s")
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("the user left")
	cancel(why)
	if _, err := store.Open(ctx, "s"); !errors.Is(err, why) {
		t.Errorf("%v", err)
	}
	other := open(t, store, "other") // is nobody's
	other.Close()
	held.Close()
	open(t, store, "s").Close()
}

func TestFullDiskTakesTheTurnBack(t *testing.T) {
	home, dir := newHome(t)
	s := open(t, NewStore(home), "s")
	defer s.Close()
	must(t, s.Append("run_1", text(User, "a")))
	before := read(t, filepath.Join(dir, "sessions", "s.jsonl"))
	s.size += MaxBytes - 100 // as if it were nearly full
	if err := s.Append("run_1", text(User, strings.Repeat("x", 100))); protocol.CodeOf(err) != protocol.CodeTooLarge {
		t.Errorf("%v", err)
	}
	if err := diskError(&os.PathError{Err: syscall.EDQUOT}); protocol.CodeOf(err) != protocol.CodeDiskQuotaExceeded {
		t.Errorf("%v", err)
	}
	if got := read(t, filepath.Join(dir, "sessions", "s.jsonl")); got != before || len(s.Messages()) != 1 {
		t.Errorf("%d messages; %q", len(s.Messages()), got)
	}
}

func newHome(t *testing.T) (home *os.Root, dir string) {
	t.Helper()
	dir = t.TempDir()
	home, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { home.Close() })
	return home, dir
}

func open(t *testing.T, s *Store, id string) *Session {
	t.Helper()
	opened, err := s.Open(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return opened
}

func text(r Role, s string) Message { return Message{Role: r, Content: []rawBlock{TextBlock(s)}} }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	must(t, err)
	return string(data)
}

func parsed(t *testing.T, line json.RawMessage) (l Line) {
	t.Helper()
	must(t, json.Unmarshal(line, &l))
	return l
}
