package audit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

func opened(t *testing.T, change ...func(*Options)) *Log {
	t.Helper()
	o := Options{File: filepath.Join(t.TempDir(), "audit.log"), MaxBytes: 1 << 20, Keep: 3}
	for _, c := range change {
		c(&o)
	}
	l, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close(t.Context()) })
	return l
}

// lines reads a file, every line of which must be one event.
func lines(t *testing.T, file string) []Event {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var events []Event
	for line := range bytes.Lines(content) {
		var e Event
		if err := json.Unmarshal(line, &e); err != nil || !bytes.HasSuffix(line, []byte("\n")) {
			t.Fatalf("line %q: %v", line, err)
		}
		events = append(events, e)
	}
	return events
}

func write(t *testing.T, l *Log, e Event) {
	t.Helper()
	if err := l.Write(t.Context(), e); err != nil {
		t.Fatal(err)
	}
}

func TestLinesAreNumberedTimedAndTheDaemonsOwn(t *testing.T) {
	l := opened(t)
	for range 3 {
		write(t, l, Event{Action: RunSubmitted, UserID: "ana"})
	}
	for i, e := range lines(t, l.o.File) {
		at, err := time.Parse(time.RFC3339Nano, e.Time)
		if e.Seq != int64(i+1) || err != nil || len(e.Time) != len("2026-11-24T14:42:00.000000000Z") || time.Since(at) > time.Minute {
			t.Errorf("line %d: %+v, %v", i, e, err)
		}
	}
	if info, err := os.Stat(l.o.File); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

func TestNothingThatIsWrittenCanForgeALineOrATerminal(t *testing.T) {
	l := opened(t, func(o *Options) { o.Content = true })
	hostile := "a\n{\"seq\":9}\r\x1b[2J\x00\x7f\u009b2J\u202e\u2028\U000e0001\xff\"\\"
	e := Event{
		Action: Denied, Caller: hostile, UserID: hostile, RunID: hostile, SessionID: hostile, Reason: hostile, Tool: hostile,
		Layer: hostile, Rule: hostile, Target: hostile, Content: hostile,
	}
	write(t, l, e)
	content, err := os.ReadFile(l.o.File)
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(content, []byte("\n")); n != 1 {
		t.Errorf("%d lines: %q", n, content)
	}
	for _, r := range string(bytes.TrimSuffix(content, []byte("\n"))) {
		if r < ' ' || r == 0x7f || r >= 0x80 && r != '\ufffd' {
			t.Fatalf("%U stands in it: %q", r, content)
		}
	}
	if got := lines(t, l.o.File)[0]; got.UserID != strings.ToValidUTF8(hostile, "\ufffd") || got.Content != got.UserID || got.Target != got.UserID {
		t.Errorf("it reads %q", got.UserID)
	}
}

func TestTextsAreBoundedAndContentIsKeptOnlyIfAskedFor(t *testing.T) {
	for _, kept := range []bool{false, true} {
		l := opened(t, func(o *Options) { o.Content = kept })
		long := strings.Repeat("é\x01", 1<<20)
		write(t, l, Event{Action: RunSubmitted, Target: long, Content: long})
		got := lines(t, l.o.File)[0]
		if len(got.Target) > maxTextBytes+3 || (got.Content != "") != kept || len(got.Content) > maxContentBytes+3 {
			t.Errorf("content %v: %d bytes of text, %d of content", kept, len(got.Target), len(got.Content))
		}
	}
}

func TestFileIsPutAsideBeforeItIsPastItsBound(t *testing.T) {
	l := opened(t, func(o *Options) { o.MaxBytes, o.Keep = 2000, 2 })
	var wg sync.WaitGroup
	for n := range 4 { // all at once
		wg.Go(func() {
			for range 50 {
				write(t, l, Event{Action: RunEnded, UserID: fmt.Sprint(n)})
			}
		})
	}
	wg.Wait()
	next := int64(0)
	for _, name := range []string{l.o.File + ".2", l.o.File + ".1", l.o.File} {
		info, err := os.Stat(name)
		if err != nil || info.Size() > 2000 || info.Mode() != 0o600 {
			t.Errorf("%s: %v, %v", name, info, err)
		}
		for _, e := range lines(t, name) {
			if next != 0 && e.Seq != next {
				t.Fatalf("line %d where %d was due", e.Seq, next)
			}
			next = e.Seq + 1
		}
	}
	if next != 201 {
		t.Errorf("the last line is %d", next-1)
	}
	if _, err := os.Stat(l.o.File + ".3"); err == nil {
		t.Error("one file too many is kept")
	}
}

func TestFilePutAsideBySomebodyElseIsLetGo(t *testing.T) {
	l := opened(t)
	write(t, l, Event{Action: RunStarted})
	if err := os.Rename(l.o.File, l.o.File+"-20261124"); err != nil {
		t.Fatal(err)
	}
	write(t, l, Event{Action: RunStarted})
	if got := lines(t, l.o.File); len(got) != 1 || got[0].Seq != 2 {
		t.Errorf("the new file has %+v", got)
	}
	// By copying and emptying, and with a signal besides.
	if err := os.Truncate(l.o.File, 0); err != nil {
		t.Fatal(err)
	}
	l.Reopen(t.Context())
	write(t, l, Event{Action: RunStarted})
	if got := lines(t, l.o.File); len(got) != 1 || got[0].Seq != 3 {
		t.Errorf("the emptied file has %+v", got)
	}
	// A link in its place is not followed: the old file is not written either.
	if err := os.Remove(l.o.File); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/dev/null", l.o.File); err != nil {
		t.Fatal(err)
	}
	if err := l.Write(t.Context(), Event{Action: RunStarted}); err == nil || l.Lost() != 1 {
		t.Errorf("error %v, %d lost", err, l.Lost())
	}
}

func TestFileThatSomebodyElseCouldHaveMadeIsRefused(t *testing.T) {
	plain := func(t *testing.T, file string) {
		t.Helper()
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name string
		make func(t *testing.T, file string) error
		says string
	}{
		{"a link", func(t *testing.T, file string) error {
			t.Helper()
			plain(t, file+".real")
			return os.Symlink(file+".real", file)
		}, "link"},
		{"a pipe", func(_ *testing.T, file string) error { return unix.Mkfifo(file, 0o600) }, "no plain file"},
		{"a directory", func(_ *testing.T, file string) error { return os.Mkdir(file, 0o700) }, "directory"},
		{"two names", func(t *testing.T, file string) error {
			t.Helper()
			plain(t, file+".real")
			return os.Link(file+".real", file)
		}, "names"},
		{"open to others", func(t *testing.T, file string) error {
			t.Helper()
			plain(t, file)
			return os.Chmod(file, 0o620)
		}, "written by others"},
		{"a directory open to others", func(t *testing.T, file string) error {
			t.Helper()
			return os.Chmod(filepath.Dir(file), 0o777)
		}, "written by others"},
		{"a directory of somebody else", func(t *testing.T, file string) error {
			t.Helper()
			if os.Geteuid() != 0 {
				t.Skip("needs root: to give a directory away")
			}
			return os.Chown(filepath.Dir(file), 4321, 4321)
		}, "belongs to uid 4321"},
		{"somebody else's", func(t *testing.T, file string) error {
			t.Helper()
			if os.Geteuid() != 0 {
				t.Skip("needs root: to give a file away")
			}
			plain(t, file)
			return os.Chown(file, 4321, 4321)
		}, "belongs to uid 4321"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "log")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(dir, "audit.log")
			if err := c.make(t, file); err != nil {
				t.Fatal(err)
			}
			if _, err := Open(Options{File: file, MaxBytes: 1 << 20, Keep: 1}); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("error %v, want one with %q", err, c.says)
			}
		})
	}
}

func TestSecondWriterIsRefused(t *testing.T) {
	l := opened(t)
	if _, err := Open(l.o); err == nil || !strings.Contains(err.Error(), "another daemon's") {
		t.Errorf("error %v", err)
	}
}

func TestHalfALineOfAHostThatDiedIsTakenAway(t *testing.T) {
	for name, c := range map[string]struct{ left, want string }{
		"ours":            {`{"time":"2026","seq":1}` + "\n" + `{"time":"20`, `{"time":"2026","seq":1}` + "\n"},
		"somebody else's": {"abc", "abc\n"},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "audit.log")
			if err := os.WriteFile(file, []byte(c.left), 0o600); err != nil {
				t.Fatal(err)
			}
			l := opened(t, func(o *Options) { o.File = file })
			write(t, l, Event{Action: RunStarted})
			content, err := os.ReadFile(file)
			if rest, ok := strings.CutPrefix(string(content), c.want); err != nil || !ok || strings.Count(rest, "\n") != 1 || rest[0] != '{' {
				t.Errorf("%q, %v", content, err)
			}
		})
	}
}

func TestWorkerCannotFloodTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := opened(t)
		flood := func(user string, n int) {
			for range n {
				write(t, l, Event{Action: Denied, UserID: user})
			}
		}
		flood("ana", 1000)
		flood("bob", 2)
		write(t, l, Event{Action: ToolDecided, UserID: "ana"}) // another action is another matter
		l.Settle(t.Context(), "ana")
		got := lines(t, l.o.File)
		if last := got[len(got)-1]; len(got) != 30+2+1+1 || last.Action != LeftOut || last.Of != Denied || last.UserID != "ana" || last.Lines != 970 {
			t.Fatalf("%d lines, the last one %+v", len(got), last)
		}
		flood("ana", 10)
		time.Sleep(5 * time.Second) //nolint:forbidigo // the bubble's clock: one more
		flood("ana", 1)
		got = lines(t, l.o.File)[len(got):]
		if len(got) != 2 || got[0].Action != LeftOut || got[0].Lines != 10 || got[1].Action != Denied {
			t.Errorf("then: %+v", got)
		}
		time.Sleep(time.Hour) //nolint:forbidigo // the bubble's clock
		if l.Settle(t.Context(), "ana"); len(l.rates) != 0 {
			t.Errorf("%d users are remembered", len(l.rates))
		}
		flood("bob", 31)
		if err := l.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		got = lines(t, l.o.File)
		if last := got[len(got)-1]; last.Action != LeftOut || last.UserID != "bob" || last.Lines != 1 {
			t.Errorf("at the end: %+v", last)
		}
	})
}

// A file size limit stands for a full disk: the kernel takes a part of the line.
func TestLineThatDoesNotFitIsTakenBackCountedAndTold(t *testing.T) {
	var log bytes.Buffer
	l := opened(t, func(o *Options) { o.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	write(t, l, Event{Action: RunStarted})
	info, err := os.Stat(l.o.File)
	if err != nil {
		t.Fatal(err)
	}
	withFileLimit(t, uint64(info.Size())+20, func() {
		for range 3 {
			if err := l.Write(t.Context(), Event{Action: RunStarted}); err == nil {
				t.Error("no error")
			}
		}
		if err := l.Check(t.Context()); err == nil {
			t.Error("all is said to be well")
		}
	})
	if got := lines(t, l.o.File); len(got) != 1 {
		t.Errorf("meanwhile there is %+v", got)
	}
	if err := l.Check(t.Context()); err != nil {
		t.Error(err)
	}
	write(t, l, Event{Action: RunEnded})
	got := lines(t, l.o.File)
	if len(got) != 3 || got[1].Action != Lost || got[1].Lines != 3 || got[1].Seq != 2 || got[2].Seq != 3 || l.Lost() != 3 {
		t.Errorf("afterwards %+v, %d lost", got, l.Lost())
	}
	if n := strings.Count(log.String(), "level=ERROR"); n != 1 {
		t.Errorf("%d complaints:\n%s", n, log.String())
	}
}

// withFileLimit bounds the size of files that this process writes.
func withFileLimit(t *testing.T, limit uint64, do func()) {
	t.Helper()
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &was); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: limit, Max: was.Max}); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &was); err != nil {
			t.Fatal(err)
		}
	}()
	do()
}

func TestLogThatIsOffTakesEverything(t *testing.T) {
	var l *Log
	l.Settle(t.Context(), "ana")
	l.Reopen(t.Context())
	if err := l.Write(t.Context(), Event{}); err != nil || l.Check(t.Context()) != nil || l.Lost() != 0 || l.Close(t.Context()) != nil {
		t.Error("it does not")
	}
}
