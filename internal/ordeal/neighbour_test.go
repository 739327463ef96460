package ordeal

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"carrel/protocol"
)

// neighbour is a user who does small things all the time, beside whatever goes on.
type neighbour struct {
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu     sync.Mutex
	took   []time.Duration
	failed []error
}

func newNeighbour(t *testing.T, d *Daemon) *neighbour {
	n := &neighbour{}
	ctx, stop := context.WithCancel(t.Context())
	n.stop = stop
	n.wg.Go(func() {
		for ctx.Err() == nil {
			began := time.Now()
			r, err := d.Client.Exec(ctx, "neighbour", protocol.ExecRequest{Command: protocol.Command{Shell: "echo well"}})
			if ctx.Err() != nil {
				return
			}
			n.answered(time.Since(began), r, err)
		}
	})
	t.Cleanup(n.leave)
	return n
}

func (n *neighbour) answered(took time.Duration, r protocol.ExecResult, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err == nil && r.Stdout != "well\n" {
		err = protocol.Errorf(protocol.CodeInternal, "its command gave %+v", r)
	}
	if err != nil {
		n.failed = append(n.failed, err)
	}
	n.took = append(n.took, took)
}

// leave ends the neighbour's work and waits for it.
func (n *neighbour) leave() {
	n.stop()
	n.wg.Wait()
}

func (n *neighbour) count() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.took)
}

// answers waits until the neighbour has had so many more.
func (n *neighbour) answers(t *testing.T, more int) {
	t.Helper()
	from := n.count()
	Eventually(t, "the neighbour is served", func() bool { return n.count() >= from+more })
}

// during gives the median of what the neighbour's answers took while do went on, and
// of the few after it that it takes to have some. Each of them must be right.
func (n *neighbour) during(t *testing.T, do func()) time.Duration {
	t.Helper()
	from := n.count()
	do()
	n.answers(t, 1)
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, err := range n.failed {
		t.Errorf("the neighbour: %v", err)
	}
	n.failed = nil
	took := slices.Sorted(slices.Values(n.took[from:]))
	return took[len(took)/2].Round(time.Millisecond / 10)
}

// held is what the daemon has of the machine.
type held struct{ processes, descriptors int }

func holding(d *Daemon) held { return held{len(d.Tree()), descriptors(d.Cmd.Process.Pid)} }

// within reports whether h is no more than what was. A process more is the one that
// the neighbour happens to run, a few descriptors more are that one's and of its
// request.
func (h held) within(was held) bool {
	return h.processes <= was.processes+1 && h.descriptors <= was.descriptors+4
}
