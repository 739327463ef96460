package systemd

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// patience bounds every wait for something that must happen.
const patience = 30 * time.Second

// told is the other end of NOTIFY_SOCKET.
func told(t *testing.T) *net.UnixConn {
	t.Helper()
	dir, err := os.MkdirTemp("", "carrel-") //nolint:usetesting // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	t.Setenv("NOTIFY_SOCKET", path)
	return conn
}

// next is what comes next, within patience.
func next(t *testing.T, conn *net.UnixConn) string {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	n, err := conn.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}

// isQuiet reports whether nothing has come.
func isQuiet(t *testing.T, conn *net.UnixConn) bool {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	_, err := conn.Read(make([]byte, 4096))
	return errors.Is(err, os.ErrDeadlineExceeded)
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) count(words string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), words)
}

// watching is a Watch that goes on until the test has ended.
func watching(t *testing.T, log *lockedBuffer, alive func(context.Context) error) {
	t.Helper()
	t.Setenv("WATCHDOG_USEC", "30000")
	m := NewManager(slog.New(slog.NewTextHandler(log, nil)))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.Watch(ctx, alive)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
}

func await(t *testing.T, claim string, holds func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-ctx.Done():
			t.Fatalf("it did not come true that %s", claim)
		case <-tick.C:
		}
	}
}

func TestManagerIsToldInTheWordsOfSdNotify(t *testing.T) {
	conn := told(t)
	m := NewManager(slog.New(slog.DiscardHandler))
	m.Ready(t.Context(), "serving")
	m.Reloading(t.Context())
	m.Stopping(t.Context(), 90*time.Second, "draining")
	if got := next(t, conn); got != "READY=1\nSTATUS=serving" {
		t.Errorf("ready: %q", got)
	}
	if got := next(t, conn); !strings.HasPrefix(got, "RELOADING=1\nMONOTONIC_USEC=") {
		t.Errorf("reloading: %q", got)
	}
	if got := next(t, conn); got != "STOPPING=1\nEXTEND_TIMEOUT_USEC=90000000\nSTATUS=draining" {
		t.Errorf("stopping: %q", got)
	}
}

func TestWatchdogIsFedWithAnswers(t *testing.T) {
	conn := told(t)
	watching(t, &lockedBuffer{}, func(context.Context) error { return nil })
	for range 3 {
		if got := next(t, conn); got != "WATCHDOG=1" {
			t.Errorf("%q", got)
		}
	}
}

func TestWatchdogIsNotFedWhileTheDaemonHangs(t *testing.T) {
	conn, log, free := told(t), &lockedBuffer{}, make(chan struct{})
	watching(t, log, func(context.Context) error {
		<-free
		return nil
	})
	await(t, "a hanging daemon is noticed again and again", func() bool { return log.count("does not answer") >= 3 })
	if !isQuiet(t, conn) {
		t.Error("the watchdog was fed by a daemon that hangs")
	}
	close(free)
	if got := next(t, conn); got != "WATCHDOG=1" {
		t.Errorf("once it goes on: %q", got)
	}
}

func TestWatchdogIsNotFedWithErrors(t *testing.T) {
	conn, log := told(t), &lockedBuffer{}
	watching(t, log, func(context.Context) error { return errors.New("the store is gone") })
	await(t, "the error is logged again and again", func() bool { return log.count("the store is gone") >= 3 })
	if !isQuiet(t, conn) {
		t.Error("the watchdog was fed by a daemon that is not well")
	}
}

func TestWithoutSystemdNothingIsToldAndNobodyAsked(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	t.Setenv("WATCHDOG_USEC", "")
	log := &lockedBuffer{}
	m := NewManager(slog.New(slog.NewTextHandler(log, nil)))
	m.Ready(t.Context(), "serving")
	m.Watch(t.Context(), func(context.Context) error {
		t.Error("asked")
		return nil
	})
	if log.count("\n") != 0 {
		t.Error("something is logged")
	}
}

func TestManagerThatIsGoneIsLoggedAndNoMore(t *testing.T) {
	conn := told(t)
	_ = conn.Close()
	log := &lockedBuffer{}
	NewManager(slog.New(slog.NewTextHandler(log, nil))).Ready(t.Context(), "serving")
	if log.count("systemd could not be told") != 1 {
		t.Error("nothing is logged")
	}
}
