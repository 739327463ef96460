package pool

import (
	"container/list"
	"context"
	"errors"
	"sync/atomic"
	"time"

	"carrel/internal/engine"
	"carrel/internal/jsonrpc"
	"carrel/internal/logline"
)

// errKilled ends a worker's context: its goroutine kills the tree.
var errKilled = errors.New("worker is to be killed")

// worker is one process and what the pool knows about it.
type worker struct {
	id  uint64
	ctx context.Context //nolint:containedctx // of its goroutine: lines of the log that are about it
	// stop ends the context of the worker's goroutine, which then kills the tree.
	stop    context.CancelCauseFunc
	claimed chan struct{} // closed when a warm worker is given to a user
	finish  chan struct{} // closed when it is to end politely
	gone    chan struct{} // closed when the tree is gone and death is set
	calls   calls
	spare   bool   // started for nobody, to be warm
	attempt uint64 // the round of its start, from its breaker (state.breakerOf)

	// start is the worker's own goroutine's, and not changed once the worker is idle;
	// stepsBefore are the steps of its process that were done when it began.
	start       Start
	stepsBefore int

	// Guarded by the pool's mutex.
	state  workerState
	user   *user         // nil while nobody's; then the same for ever
	listed *list.Element // in state.ready or state.idle
	yields *list.Element // in state.yielders
	active int           // runs lent now
	served int           // runs lent ever
	ending bool          // finish or kill has been told
	fate   *fate         // why the pool ends it; nil = it ended by itself
	// startedAt is when its goroutine was launched, usedAt when its last run was
	// lent or ended.
	startedAt, usedAt time.Time
	proc              engine.Process // nil until started
	// conn and link are set before the worker becomes idle, and not changed after.
	conn *jsonrpc.Conn
	link Link // nil = it has none

	// death is set before gone is closed, and not changed after.
	death *DeathError

	// heard counts what came from the worker, handling is whether a sink of ours
	// has it now: the evidence that a worker which answers no ping is alive.
	heard    atomic.Uint64
	handling atomic.Bool
}

// newWorker begins the life of a worker; u is nil for a warm one.
func (s *state) newWorker(u *user) {
	s.tickets++
	ctx, stop := context.WithCancelCause(logline.With(s.root, logline.Fields{Worker: s.tickets}))
	w := &worker{
		id:        s.tickets,
		ctx:       ctx,
		stop:      stop,
		claimed:   make(chan struct{}),
		finish:    make(chan struct{}),
		gone:      make(chan struct{}),
		spare:     u == nil,
		user:      u,
		startedAt: s.now,
	}
	w.attempt = s.breakerOf(w).begin()
	w.calls.init()
	s.workers[w] = struct{}{}
	s.count[starting]++
	if u == nil {
		s.unclaimed++
	} else {
		s.assign(w, u)
	}
	s.do(effect{kind: launch, w: w, ctx: ctx})
}

// assign makes w the worker of u, whose turn that was.
func (s *state) assign(w *worker, u *user) {
	w.user, u.worker, u.promised = u, w, false
	logline.Fill(w.ctx, logline.Fields{UserID: u.id})
	s.toEnd(u)
	s.touch(u)
}

// claimWarm gives a ready worker to u.
func (s *state) claimWarm(w *worker, u *user) {
	s.become(w, binding)
	s.assign(w, u)
	s.do(effect{kind: claim, w: w})
}

// started takes the process in. It reports whether the worker is still wanted.
func (s *state) started(w *worker, proc engine.Process) bool {
	w.proc = proc
	if w.state != starting {
		return false
	}
	s.breakerOf(w).succeeded(s.now)
	if w.user != nil {
		s.become(w, binding)
		return true
	}
	s.starts.succeeded(s.now) // What works for a warm one works for a user's.
	s.become(w, ready)
	w.listed = s.ready.PushBack(w)
	return true
}

// initialized makes a bound worker available to its user.
func (s *state) initialized(w *worker, conn *jsonrpc.Conn) {
	w.conn = conn
	if w.state != binding {
		return
	}
	w.usedAt, s.servedAt = s.now, s.now
	s.binds.forget(w.user.id)
	w.user.lastFailure = nil
	s.become(w, idle)
	w.listed = s.idle.PushBack(w)
	s.fill(w)
	s.touch(w.user)
}

// drain lets a worker take no more runs. It ends once those it has are over.
func (s *state) drain(w *worker) {
	if w.state == draining || w.state == dead {
		return
	}
	from := w.state
	s.become(w, draining)
	if u := w.user; u != nil {
		u.worker, u.old = nil, w
		s.touch(u)
	}
	switch {
	case from == starting || from == ready || from == binding:
		s.end(w, kill) // It does not speak yet, and has nothing to lose.
	case w.active == 0:
		s.end(w, finish)
	}
}

// end tells the worker's goroutine, once, how to end it. With the worker its
// user's turn is over: the next one stands behind everybody who waits.
func (s *state) end(w *worker, how effectKind) {
	if w.ending {
		return
	}
	w.ending = true
	s.ending++
	if w.served > 0 {
		s.toEnd(w.user)
	}
	s.do(effect{kind: how, w: w})
}

// doom kills a worker whatever it does. The first fate stays.
func (s *state) doom(w *worker, f *fate) {
	if w.state == dead {
		return
	}
	if w.fate == nil {
		w.fate = f
	}
	s.drain(w)
	s.end(w, kill)
	s.do(effect{kind: kill, w: w}) // It may have been asked politely before.
}

// buried is the end of a worker's life; death is what its runs are told.
func (s *state) buried(w *worker, death *DeathError) {
	s.drain(w)
	s.become(w, dead)
	delete(s.workers, w)
	w.death = death
	if u := w.user; u != nil {
		u.old = nil
		s.touch(u)
	}
	s.breakerOf(w).dropped(w.attempt)
	if w.proc != nil {
		s.noRoomUntil = time.Time{} // There may be room now; ask again.
	}
	s.do(effect{kind: mourn, w: w})
}
