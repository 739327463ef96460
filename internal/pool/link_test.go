package pool

import (
	"errors"
	"os"
	"sync/atomic"
	"testing"
	"testing/synctest"
)

// fakeLink is the host's end of a line.
type fakeLink struct {
	userID string
	closed atomic.Int32
}

func (l *fakeLink) Close() { l.closed.Add(1) }

// lines connects workers with links, and keeps both ends.
type lines struct {
	links []*fakeLink
	files []*os.File
	fails error
}

func (c *lines) connect(userID string) (Link, *os.File, error) {
	if c.fails != nil {
		return nil, nil, c.fails
	}
	file, err := os.Open(os.DevNull)
	if err != nil {
		return nil, nil, err
	}
	l := &fakeLink{userID: userID}
	c.links, c.files = append(c.links, l), append(c.files, file)
	return l, file, nil
}

func TestEveryWorkerHasALineOfItsOwnUntilItIsGone(t *testing.T) {
	var c lines
	inBubble(t, Options{MaxWorkers: 2, Connect: c.connect}, func(t *testing.T, r *rig) {
		ann := r.acquire("ann")
		again := r.acquire("ann")
		bob := r.acquire("bob")
		if len(c.links) != 2 {
			t.Fatalf("%d lines for 2 workers", len(c.links))
		}
		if ann.Link() != c.links[0] || again.Link() != c.links[0] || bob.Link() != c.links[1] || c.links[1].userID != "bob" {
			t.Error("a lease has another worker's line")
		}
		for _, proc := range r.engine.procs {
			if proc.broker == nil {
				t.Error("a worker was bound without its end")
			}
		}
		for _, f := range c.files {
			if _, err := f.Stat(); !errors.Is(err, os.ErrClosed) {
				t.Error("the host keeps the worker's end, so the broker would not see the worker go")
			}
		}
		if c.links[0].closed.Load() != 0 {
			t.Error("the line of a living worker is closed")
		}
		r.engine.procs[0].Kill()
		synctest.Wait()
		if c.links[0].closed.Load() != 1 || c.links[1].closed.Load() != 0 {
			t.Error("the line of a dead worker is open, or another's is not")
		}
		for _, l := range []*Lease{ann, again, bob} {
			l.Release()
		}
	})
	for _, l := range c.links {
		if l.closed.Load() != 1 {
			t.Errorf("the line of %s was closed %d times", l.userID, l.closed.Load())
		}
	}
}

func TestLineIsClosedWhenBindingFails(t *testing.T) {
	var c lines
	inBubble(t, Options{MaxWorkers: 1, Connect: c.connect}, func(t *testing.T, r *rig) {
		failed := false
		r.engine.bindErr = func(string) error {
			if failed {
				return nil
			}
			failed = true
			return errors.New("no")
		}
		r.acquire("ann").Release()
		if len(c.links) != 2 || c.links[0].closed.Load() != 1 || c.links[1].closed.Load() != 0 {
			t.Errorf("lines %+v", c.links)
		}
	})
}

func TestWithoutALineNoWorkerIsBound(t *testing.T) {
	c := lines{fails: errors.New("too many open files")}
	inBubble(t, Options{MaxWorkers: 1, Connect: c.connect}, func(t *testing.T, r *rig) {
		if _, err := r.pool.Acquire(t.Context(), "ann", AcquireOptions{}); err == nil {
			t.Error("a worker was lent without its line")
		}
		for _, user := range r.engine.users() {
			if user != "" {
				t.Errorf("a worker is bound to %s", user)
			}
		}
	})
}
