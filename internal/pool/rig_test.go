package pool

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"carrel/protocol"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a running pool over a fake engine, in a synctest bubble.
type rig struct {
	t      *testing.T
	pool   *Pool
	engine *fakeEngine
	stop   context.CancelFunc
	ran    chan error
	runs   int
}

// inBubble runs test with time under control, and checks at its end that Run
// returns and nothing of any worker is left.
func inBubble(t *testing.T, o Options, test func(t *testing.T, r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, o)
		synctest.Wait()
		test(t, r)
		r.stop()
		if err := <-r.ran; err != nil {
			t.Errorf("Run: %v", err)
		}
		if live, _ := r.engine.count(); live != 0 {
			t.Errorf("%d processes are left", live)
		}
		if r.engine.twice != "" {
			t.Errorf("user %s had two workers at once", r.engine.twice)
		}
		if r.engine.mostLive > r.pool.o.MaxWorkers {
			t.Errorf("%d processes at once, allowed are %d", r.engine.mostLive, r.pool.o.MaxWorkers)
		}
	})
}

func newRig(t testing.TB, o Options) *rig {
	if o.Rand == nil {
		o.Rand = func() float64 { return 0.5 }
	}
	e := &fakeEngine{ctx: t.Context(), byUser: make(map[string]int), version: protocol.Version}
	ctx, stop := context.WithCancel(t.Context())
	r := &rig{pool: New(e, o), engine: e, stop: stop, ran: make(chan error, 1)}
	r.t, _ = t.(*testing.T)
	go func() { r.ran <- r.pool.Run(ctx) }()
	for begun := false; !begun; {
		runtime.Gosched()
		r.pool.look(func(s *state) { begun = s.running })
	}
	return r
}

// acquire must succeed.
func (r *rig) acquire(userID string) *Lease {
	r.t.Helper()
	l, err := r.pool.Acquire(r.t.Context(), userID, AcquireOptions{})
	if err != nil {
		r.t.Fatalf("Acquire(%s): %v", userID, err)
	}
	return l
}

// pending is an Acquire in a goroutine of its own.
type pending struct {
	cancel context.CancelFunc
	places []int
	lease  *Lease
	err    error
	done   chan struct{}
	took   time.Duration
}

func (r *rig) request(userID string) *pending {
	ctx, cancel := context.WithCancel(r.t.Context())
	q := &pending{cancel: cancel, done: make(chan struct{})}
	began := time.Now()
	go func() {
		defer close(q.done)
		q.lease, q.err = r.pool.Acquire(ctx, userID, AcquireOptions{Queued: func(p int) { q.places = append(q.places, p) }})
		q.took = time.Since(began)
	}()
	synctest.Wait()
	return q
}

func (q *pending) answered() bool {
	synctest.Wait()
	select {
	case <-q.done:
		return true
	default:
		return false
	}
}

// events collects what a run sends.
type events struct {
	mu   sync.Mutex
	seen []string
}

func (e *events) sink(ev protocol.EventParams) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.seen = append(e.seen, fmt.Sprintf("%d %s", ev.Seq, ev.Type))
	return nil
}

func nothing(protocol.EventParams) error { return nil }

// going is an Execute in a goroutine of its own.
type goingRun struct {
	result protocol.Result
	err    error
	done   chan struct{}
	took   time.Duration
}

func (r *rig) execute(ctx context.Context, l *Lease, message string) *goingRun {
	r.runs++
	g := &goingRun{done: make(chan struct{})}
	id := fmt.Sprintf("run_%d", r.runs)
	began := time.Now()
	go func() {
		defer close(g.done)
		g.result, g.err = l.Execute(ctx, protocol.ExecuteParams{RunID: id, Message: message}, nothing)
		g.took = time.Since(began)
		l.Release()
	}()
	synctest.Wait()
	return g
}

func wantCode(t *testing.T, err error, code protocol.Code) {
	t.Helper()
	if err == nil || protocol.CodeOf(err) != code {
		t.Errorf("error is %v, want code %s", err, code)
	}
}
