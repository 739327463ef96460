package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"
)

// line is a network between a client and a daemon, at its worst: it delays what it
// carries, splits it anywhere, stalls, and cuts connections at any byte, cleanly or not.
// What it does to the n-th connection, a seed tells.
type line struct {
	url string
	// breaks is in a request whose answer may be cut; "": that of any may.
	breaks   string
	most     int // bytes of answers before a cut
	listener net.Listener
	ctx      context.Context //nolint:containedctx // the test's, for the connections
	carrying sync.WaitGroup

	mu     sync.Mutex
	seed   uint64
	count  uint64 // connections so far
	cuts   int
	live   map[net.Conn]bool
	daemon string        // host and port
	there  chan struct{} // closed while the daemon is
}

// newLine makes a line to a daemon, which carries up to most bytes of answers on one
// connection: several times what the largest event takes, or that would never arrive.
// The test's cleanup ends it.
func newLine(t *testing.T, daemonURL, breaks string, most int) *line {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &line{
		url: "http://" + listener.Addr().String(), breaks: breaks, most: most, listener: listener, ctx: t.Context(),
		seed: lineSeed(t), live: map[net.Conn]bool{}, there: make(chan struct{}),
	}
	l.reach(t, daemonURL)
	l.carrying.Go(l.serve)
	t.Cleanup(func() {
		_ = listener.Close()
		l.cutAll()
		l.carrying.Wait()
		t.Logf("%d connections, %d of them cut; CARREL_TEST_SEED=%d", l.count, l.cuts, l.seed)
	})
	return l
}

// lineSeed is CARREL_TEST_SEED, or another every time.
func lineSeed(t *testing.T) uint64 {
	t.Helper()
	given := os.Getenv("CARREL_TEST_SEED")
	if given == "" {
		return rand.Uint64()
	}
	n, err := strconv.ParseUint(given, 10, 64)
	if err != nil {
		t.Fatalf("CARREL_TEST_SEED: %v", err)
	}
	return n
}

// lose has the daemon gone: connections hang until there is another.
func (l *line) lose() {
	l.mu.Lock()
	l.there = make(chan struct{})
	l.mu.Unlock()
	l.cutAll()
}

// reach names the daemon that connections lead to from now on.
func (l *line) reach(t *testing.T, daemonURL string) {
	t.Helper()
	u, err := url.Parse(daemonURL)
	if err != nil {
		t.Fatal(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.daemon = u.Host
	close(l.there)
}

func (l *line) cutAll() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.live {
		_ = c.Close()
	}
}

// open is how many connections there are.
func (l *line) open() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.live)
}

func (l *line) cutSoFar() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cuts
}

func (l *line) serve() {
	for {
		down, err := l.listener.Accept()
		if err != nil {
			return // closed
		}
		l.mu.Lock()
		l.count++
		l.live[down] = true
		random := rand.New(rand.NewPCG(l.seed, l.count))
		there := l.there
		l.mu.Unlock()
		l.carrying.Go(func() {
			l.carry(down, random, there)
			_ = down.Close()
			l.mu.Lock()
			delete(l.live, down)
			l.mu.Unlock()
		})
	}
}

// carry is one connection, to its end.
func (l *line) carry(down net.Conn, random *rand.Rand, there <-chan struct{}) {
	select {
	case <-there:
	default:
		select { // and then it is lost, with what was said into it
		case <-there:
		case <-l.ctx.Done():
		}
		return
	}
	l.mu.Lock()
	daemon := l.daemon
	l.mu.Unlock()
	up, err := net.Dial("tcp", daemon)
	if err != nil {
		return
	}
	f := &fate{line: l, random: random, asked: l.breaks == ""}
	var requests sync.WaitGroup
	requests.Go(func() {
		_, _ = io.Copy(io.MultiWriter(up, f), down)
		_ = up.Close() // whoever asked has left
	})
	f.answer(down, up)
	_ = down.Close()
	_ = up.Close()
	requests.Wait()
}

// fate is what becomes of one connection.
type fate struct {
	line   *line
	random *rand.Rand // answer's alone

	mu    sync.Mutex
	heard []byte // the end of what was asked
	asked bool   // for what may break
}

// Write hears what is asked.
func (f *fate) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.heard = append(f.heard, p...)
	f.asked = f.asked || bytes.Contains(f.heard, []byte(f.line.breaks))
	f.heard = f.heard[max(0, len(f.heard)-len(f.line.breaks)):]
	return len(p), nil
}

func (f *fate) mayBreak() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked
}

// answer carries what the daemon answers, until the cut.
func (f *fate) answer(down, up net.Conn) {
	left := f.random.IntN(f.line.most) // bytes to the cut
	if f.line.cutSoFar() == 0 {
		left /= 8 // so that there is one
	}
	piece := 1 + f.random.IntN(2048)
	if f.random.IntN(4) == 0 {
		piece = 1 + f.random.IntN(16)
	}
	buf := make([]byte, 4<<10)
	for {
		n, err := up.Read(buf)
		for rest := buf[:n]; len(rest) > 0; {
			now := rest[:min(len(rest), piece)]
			mayBreak := f.mayBreak()
			isCut := mayBreak && left <= len(now)
			if isCut {
				now = now[:left]
			}
			if _, err := down.Write(now); err != nil {
				return
			}
			if isCut {
				f.cut(down)
				return
			}
			rest = rest[len(now):]
			if mayBreak {
				left -= len(now)
			}
			if f.random.IntN(1+(16<<10)/piece) == 0 && !f.pause() { // about once in 16 KiB
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// pause delays what follows by up to 20 ms, or stalls for up to 300.
func (f *fate) pause() bool {
	most := 20 * time.Millisecond
	if f.random.IntN(16) == 0 {
		most = 300 * time.Millisecond
	}
	select {
	case <-time.After(time.Duration(f.random.Int64N(int64(most)))):
		return true
	case <-f.line.ctx.Done():
		return false
	}
}

// cut ends the connection, one time in two with a reset.
func (f *fate) cut(down net.Conn) {
	f.line.mu.Lock()
	f.line.cuts++
	f.line.mu.Unlock()
	if tcp, ok := down.(*net.TCPConn); ok && f.random.IntN(2) == 0 {
		_ = tcp.SetLinger(0)
	}
}

// errShort tells of a walk that ended without the run's end.
var errShort = errors.New("the events ended, and the run had not")
