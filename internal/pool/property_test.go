package pool

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"carrel/internal/engine"
	"carrel/protocol"
)

// step is one thing that happens to the pool. n chooses among what is there.
type step struct {
	what string
	n    int
	wait time.Duration
}

func drawSteps(rt *rapid.T) []step {
	one := rapid.Custom(func(rt *rapid.T) step {
		return step{
			what: rapid.SampledFrom([]string{
				"acquire", "acquire", "acquire", "release", "release", "leave", "crash",
				"time", "time", "starts fail", "binds fail", "retire", "no room", "slow",
			}).Draw(rt, "what"),
			n:    rapid.IntRange(0, 20).Draw(rt, "n"),
			wait: time.Duration(rapid.SampledFrom([]int{1, 50, 1000, 7000, 40000}).Draw(rt, "ms")) * time.Millisecond,
		}
	})
	return rapid.SliceOfN(one, 1, 80).Draw(rt, "steps")
}

func TestWhateverHappensThePoolKeepsItsPromises(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		o := Options{
			MaxWorkers:     rapid.IntRange(1, 4).Draw(rt, "workers"),
			Warm:           rapid.IntRange(0, 2).Draw(rt, "warm"),
			MaxRequests:    rapid.IntRange(0, 4).Draw(rt, "requests"),
			MaxRunsPerUser: rapid.IntRange(1, 3).Draw(rt, "runs"),
			QueueSize:      rapid.IntRange(0, 6).Draw(rt, "queue"),
			QueueTimeout:   20 * time.Second,
			IdleTimeout:    30 * time.Second,
			StartupTimeout: 10 * time.Second,
		}
		seed := rapid.Uint64().Draw(rt, "seed")
		hurry := rapid.Bool().Draw(rt, "hurry")
		steps := drawSteps(rt)
		// rapid's own T may not be used inside the bubble: its failures unwind
		// the goroutine they are reported on.
		var fault error
		synctest.Test(t, func(t *testing.T) { fault = drive(t, o, rand.New(rand.NewPCG(seed, 0)), steps, hurry) })
		if fault != nil {
			rt.Fatal(fault)
		}
	})
}

// model is what must be true of the pool, told in the plainest way: who waits,
// in the order of coming, and who holds what.
type model struct {
	r       *rig
	waiting map[string][]*pending
	held    []*Lease
	pending int // retirements under way
	retired chan struct{}

	failStarts, failBinds atomic.Int64 // how many more are to fail
	noRoom                atomic.Bool
}

func drive(t *testing.T, o Options, dice *rand.Rand, steps []step, hurry bool) error {
	o.Rand = dice.Float64
	m := &model{waiting: make(map[string][]*pending), retired: make(chan struct{}, 1000)}
	o.Pressure = func() Pressure { return Pressure{NoRoom: m.noRoom.Load()} }
	m.r = newRig(t, o)
	synctest.Wait()
	m.r.engine.startErr = func(int, engine.Spec) error {
		if m.failStarts.Add(-1) >= 0 {
			return errClone
		}
		return nil
	}
	m.r.engine.bindErr = func(string) error {
		if m.failBinds.Add(-1) >= 0 {
			return errors.New("bind: refused")
		}
		return nil
	}
	fault := func() error {
		for i, st := range steps {
			m.do(st)
			synctest.Wait()
			if err := m.check(); err != nil {
				return fmt.Errorf("after step %d, %+v: %w", i, st, err)
			}
		}
		return nil
	}()
	return errors.Join(fault, m.end(hurry))
}

func (m *model) do(st step) {
	user := string(rune('a' + st.n%5))
	switch st.what {
	case "acquire":
		m.waiting[user] = append(m.waiting[user], m.r.request(user))
	case "release":
		if len(m.held) > 0 {
			i := st.n % len(m.held)
			m.held[i].Release()
			m.held = slices.Delete(m.held, i, i+1)
		}
	case "leave":
		if q := m.waiting[user]; len(q) > 0 {
			q[st.n%len(q)].cancel()
		}
	case "crash":
		if _, started := m.r.engine.count(); started > 0 {
			m.r.engine.procs[started-1-st.n%min(started, 5)].die(protocol.ExitCause{Signal: "SIGKILL"})
		}
	case "time":
		time.Sleep(st.wait)
	case "starts fail":
		m.failStarts.Store(int64(st.n))
	case "binds fail":
		m.failBinds.Store(int64(st.n))
	case "no room":
		m.noRoom.Store(st.n%2 == 0)
	case "slow":
		m.r.engine.startDelay = time.Duration(st.n) * time.Second
		m.r.engine.reapDelay = time.Duration(st.n) * time.Millisecond
	case "retire":
		m.pending++
		go func() {
			_ = m.r.pool.Retire(m.r.t.Context(), user)
			m.retired <- struct{}{}
		}()
	}
}

// check takes in the answers that have come and looks at everything.
func (m *model) check() error {
	for user, queue := range m.waiting {
		var left []*pending
		for _, q := range queue {
			switch {
			case !q.answered():
				left = append(left, q)
			case q.err != nil:
				if !slices.Contains(refusals, protocol.CodeOf(q.err)) && !errors.Is(q.err, context.Canceled) {
					return fmt.Errorf("acquire of %s: %w", user, q.err)
				}
			case len(left) > 0:
				return fmt.Errorf("user %s: a run was served before one that came earlier", user)
			default:
				m.held = append(m.held, q.lease)
			}
		}
		m.waiting[user] = left
	}
	if m.r.engine.twice != "" {
		return fmt.Errorf("user %s had two workers at once", m.r.engine.twice)
	}
	if m.r.engine.mostLive > m.r.pool.o.MaxWorkers {
		return fmt.Errorf("%d processes at once", m.r.engine.mostLive)
	}
	var err error
	m.r.pool.look(func(s *state) { err = errors.Join(m.counts(s), m.nobodyWaitsInVain(s)) })
	return err
}

var refusals = []protocol.Code{
	protocol.CodeQueueFull, protocol.CodeQueueTimeout, protocol.CodeWorkerStartFailed,
	protocol.CodeCanceled, protocol.CodeShuttingDown,
}

// counts compares what the state counts as it goes with what is there.
func (m *model) counts(s *state) error {
	active := make(map[*worker]int)
	leases := make(map[*user]int)
	for _, l := range m.held {
		active[l.w]++
		leases[l.w.user]++
	}
	var count [workerStates]int
	ending, unclaimed := 0, 0
	for w := range s.workers {
		count[w.state]++
		if w.active != active[w] || w.active > s.o.MaxRunsPerUser {
			return fmt.Errorf("worker %d has %d runs, %d leases are held", w.id, w.active, active[w])
		}
		if (w.state == idle) != (w.active == 0 && w.state == busy || w.state == idle) {
			return fmt.Errorf("worker %d is %s with %d runs", w.id, w.state, w.active)
		}
		if w.ending {
			ending++
		}
		if w.state == starting && w.user == nil {
			unclaimed++
		}
	}
	if count != s.count || ending != s.ending || unclaimed != s.unclaimed {
		return fmt.Errorf("states %v counted %v; ending %d counted %d; unclaimed %d counted %d",
			count, s.count, ending, s.ending, unclaimed, s.unclaimed)
	}
	if s.idle.Len() != count[idle] || s.ready.Len() != count[ready] {
		return fmt.Errorf("%d and %d on the lists of idle and ready, states are %v", s.idle.Len(), s.ready.Len(), count)
	}
	queued, ringed := 0, 0
	for id, u := range s.users {
		if u.waiters.Len() != len(m.waiting[id]) || u.leases != leases[u] {
			return fmt.Errorf("user %s has %d waiting and %d leases, want %d and %d", id, u.waiters.Len(), u.leases, len(m.waiting[id]), leases[u])
		}
		if u.waiters.Len() > 0 {
			ringed++
		} else if u.worker == nil && u.old == nil && u.leases == 0 {
			return fmt.Errorf("user %s is kept for nothing", id)
		}
		if u.worker != nil && u.old != nil {
			return fmt.Errorf("user %s has two workers", id)
		}
		queued += u.waiters.Len() - s.covered(u)
	}
	if queued != s.queued || ringed != s.ring.Len() {
		return fmt.Errorf("%d queued, counted %d; %d users in the ring, counted %d", queued, s.queued, ringed, s.ring.Len())
	}
	for id, q := range m.waiting {
		if len(q) > 0 && s.users[id] == nil {
			return fmt.Errorf("%d runs of %s wait and are forgotten", len(q), id)
		}
	}
	return nil
}

// nobodyWaitsInVain looks for runs that wait for something that is there.
func (m *model) nobodyWaitsInVain(s *state) error {
	var last uint64
	for e := s.ring.Front(); e != nil; e = e.Next() {
		u := e.Value.(*user)
		if u.ticket <= last {
			return fmt.Errorf("the ring is out of order at %s", u.id)
		}
		last = u.ticket
		if w := u.worker; s.free(w) {
			return fmt.Errorf("user %s waits for a worker that is %s with %d runs", u.id, w.state, w.active)
		}
		held := !s.starts.gate(s.now).until.IsZero() || s.starts.probing || !s.binds.gate(u.id, s.now).until.IsZero()
		if u.worker != nil || u.old != nil || held {
			continue
		}
		if s.ready.Len() > 0 {
			return fmt.Errorf("user %s waits, and a warm worker is there", u.id)
		}
		if s.live() < s.o.MaxWorkers && !s.now.Before(s.noRoomUntil) {
			return fmt.Errorf("user %s waits, and there is room", u.id)
		}
		if s.idle.Len() > 0 && !u.promised {
			return fmt.Errorf("user %s waits, and a worker is idle", u.id)
		}
	}
	if s.yielders.Len() > s.stranded {
		return fmt.Errorf("%d workers yield for %d users", s.yielders.Len(), s.stranded)
	}
	return nil
}

// end shuts down, in a hurry or after giving all leases back.
func (m *model) end(hurry bool) error {
	ctx, cancel := context.WithTimeout(m.r.t.Context(), time.Minute)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- m.r.pool.Shutdown(ctx) }()
	synctest.Wait()
	for _, queue := range m.waiting {
		for _, q := range queue {
			if !q.answered() {
				return errors.New("an Acquire outlives the shutdown")
			}
		}
	}
	if !hurry {
		for _, l := range m.held {
			l.Release()
		}
	}
	began := time.Now()
	if err := <-done; err != nil {
		return err
	}
	if !hurry && time.Since(began) > 30*time.Second {
		return fmt.Errorf("the shutdown took %s", time.Since(began))
	}
	for range m.pending {
		<-m.retired
	}
	m.r.stop()
	err := <-m.r.ran
	if live, _ := m.r.engine.count(); live != 0 {
		return fmt.Errorf("%d processes are left", live)
	}
	return err
}
