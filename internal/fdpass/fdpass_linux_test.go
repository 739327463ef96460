package fdpass

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type note struct {
	Text string `json:"text"`
}

func pair(tb testing.TB) (a, b *Conn) {
	tb.Helper()
	a, theirs, err := Pair()
	if err != nil {
		tb.Fatal(err)
	}
	if b, err = New(theirs); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _, _ = a.Close(), b.Close() })
	return a, b
}

// rawPair has a plain descriptor at one end, for a peer that breaks the rules.
func rawPair(tb testing.TB) (*Conn, int) {
	tb.Helper()
	c, theirs, err := Pair()
	if err != nil {
		tb.Fatal(err)
	}
	fd, err := unix.FcntlInt(theirs.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		tb.Fatal(err)
	}
	_ = theirs.Close()
	tb.Cleanup(func() { _, _ = c.Close(), unix.Close(fd) })
	return c, fd
}

// openFiles counts this process's descriptors.
func openFiles(tb testing.TB) int {
	tb.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		tb.Fatal(err)
	}
	return len(entries)
}

func TestMessagesArriveInOrderAndWhole(t *testing.T) {
	a, b := pair(t)
	rapid.Check(t, func(t *rapid.T) {
		texts := rapid.SliceOfN(rapid.String(), 1, 20).Draw(t, "texts")
		var sending sync.WaitGroup
		sending.Go(func() {
			for _, text := range texts {
				if err := a.Send(note{text}); err != nil {
					t.Errorf("Send: %v", err)
				}
			}
		})
		for _, want := range texts {
			var got note
			if files, err := b.Recv(&got); err != nil || len(files) != 0 || got.Text != want {
				t.Errorf("Recv: %q, %d files, %v; want %q", got.Text, len(files), err, want)
			}
		}
		sending.Wait()
	})
}

func TestLargestMessageArrivesAndALargerOneIsNotSent(t *testing.T) {
	a, b := pair(t)
	text := strings.Repeat("x", maxBytes-len(`{"text":""}`))
	var sending sync.WaitGroup
	sending.Go(func() {
		if err := a.Send(note{text}); err != nil {
			t.Error(err)
		}
	})
	var got note
	if _, err := b.Recv(&got); err != nil || got.Text != text {
		t.Errorf("Recv: %d bytes, %v", len(got.Text), err)
	}
	sending.Wait()
	if err := a.Send(note{text + "x"}); err == nil {
		t.Error("a message beyond the limit was sent")
	}
}

func TestFilesArriveCloseOnExecAndInTheirOrder(t *testing.T) {
	a, b := pair(t)
	files := make([]*os.File, maxFiles)
	for i := range files {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Fprint(w, i); err != nil {
			t.Fatal(err)
		}
		_ = w.Close()
		files[i] = r
	}
	if err := a.Send(note{"many"}, files...); err != nil {
		t.Fatal(err)
	}
	CloseAll(files)
	var n note
	got, err := b.Recv(&n)
	if err != nil || len(got) != maxFiles {
		t.Fatalf("%d files, %v", len(got), err)
	}
	defer CloseAll(got)
	for i, f := range got {
		flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFD, 0)
		if err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("file %d: flags %#x, %v: want close-on-exec", i, flags, err)
		}
		if content, err := io.ReadAll(f); err != nil || string(content) != fmt.Sprint(i) {
			t.Errorf("file %d holds %q, %v", i, content, err)
		}
	}
	if err := a.Send(note{}, make([]*os.File, maxFiles+1)...); err == nil {
		t.Error("more files than allowed were sent")
	}
}

func TestEndIsEOFOnlyBetweenMessages(t *testing.T) {
	frame := func(size uint32, body string) []byte {
		return append(binary.BigEndian.AppendUint32(nil, size), body...)
	}
	for _, tt := range []struct {
		name string
		sent []byte
		eof  bool
	}{
		{"between", nil, true},
		{"in the length", []byte{0, 0}, false},
		{"before the body", frame(10, ""), false},
		{"in the body", frame(10, `{"te`), false},
		{"too long", frame(maxBytes+1, ""), false},
		{"the longest there is", frame(1<<32-1, ""), false},
		{"no JSON", frame(3, "abc"), false},
		{"empty", frame(0, ""), false},
		{"of another kind", frame(2, "[]"), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, fd := rawPair(t)
			if len(tt.sent) > 0 {
				if _, err := unix.Write(fd, tt.sent); err != nil {
					t.Fatal(err)
				}
			}
			if err := unix.Shutdown(fd, unix.SHUT_WR); err != nil {
				t.Fatal(err)
			}
			var n note
			_, err := c.Recv(&n)
			if err == nil || errors.Is(err, io.EOF) != tt.eof {
				t.Errorf("Recv: %v", err)
			}
		})
	}
}

func TestRefusedMessageLeavesNoFileOpen(t *testing.T) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = null.Close() }()
	for _, tt := range []struct {
		name  string
		frame []byte
		files int
	}{
		{"no JSON", append([]byte{0, 0, 0, 3}, "abc"...), maxFiles},
		{"too long", []byte{255, 255, 255, 255}, 3},
		{"more files than there is room for", append([]byte{0, 0, 0, 2}, "{}"...), maxFiles + 20},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, fd := rawPair(t)
			before := openFiles(t)
			fds := make([]int, tt.files)
			for i := range fds {
				fds[i] = int(null.Fd())
			}
			if err := unix.Sendmsg(fd, tt.frame, unix.UnixRights(fds...), nil, 0); err != nil {
				t.Fatal(err)
			}
			var n note
			if files, err := c.Recv(&n); err == nil || len(files) != 0 {
				t.Errorf("Recv: %d files, %v", len(files), err)
			}
			if after := openFiles(t); after != before {
				t.Errorf("%d descriptors are open, %d were before", after, before)
			}
		})
	}
}

func TestCloseAndDeadlineEndARecvUnderWay(t *testing.T) {
	a, b := pair(t)
	var waiting sync.WaitGroup
	waiting.Go(func() {
		var n note
		if _, err := a.Recv(&n); err == nil {
			t.Error("Recv returned a message")
		}
	})
	_ = a.Close()
	waiting.Wait()
	if err := b.SetDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	var n note
	if _, err := b.Recv(&n); !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, io.EOF) {
		t.Errorf("Recv after the deadline: %v", err)
	}
}

func TestSendToAPeerThatIsGoneIsAnError(t *testing.T) {
	a, b := pair(t)
	_ = b.Close()
	if err := a.Send(note{"x"}); !errors.Is(err, unix.EPIPE) {
		t.Errorf("Send: %v, want EPIPE", err)
	}
}

func TestSendersDoNotMixTheirMessages(t *testing.T) {
	a, b := pair(t)
	const senders, each = 8, 50
	var sending sync.WaitGroup
	for i := range senders {
		sending.Go(func() {
			text := strings.Repeat(fmt.Sprint(i), 20_000) // more than the socket takes at once
			for range each {
				if err := a.Send(note{text}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range senders * each {
		var n note
		if _, err := b.Recv(&n); err != nil {
			t.Fatal(err)
		}
		if strings.Count(n.Text, n.Text[:1]) != 20_000 {
			t.Fatal("two messages were mixed")
		}
	}
	sending.Wait()
}

func FuzzRecv(f *testing.F) {
	f.Add([]byte{0, 0, 0, 2, '{', '}'}, 0)
	f.Add([]byte{0, 0, 0, 2, '{'}, 1)
	f.Add([]byte{255, 255, 255, 255}, 3)
	f.Add([]byte{0}, 40)
	f.Fuzz(func(t *testing.T, sent []byte, files int) {
		if len(sent) == 0 || len(sent) > 64<<10 || files < 0 || files > 100 {
			return
		}
		c, fd := rawPair(t)
		before := openFiles(t)
		rights := make([]int, files)
		for i := range rights {
			rights[i] = fd
		}
		var oob []byte
		if files > 0 {
			oob = unix.UnixRights(rights...)
		}
		if err := unix.Sendmsg(fd, sent, oob, nil, 0); err != nil {
			t.Fatal(err)
		}
		if err := unix.Shutdown(fd, unix.SHUT_WR); err != nil {
			t.Fatal(err)
		}
		for {
			var n note
			got, err := c.Recv(&n)
			CloseAll(got)
			if err != nil {
				break
			}
		}
		if after := openFiles(t); after != before {
			t.Errorf("%d descriptors are open, %d were before", after, before)
		}
	})
}
