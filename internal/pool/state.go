package pool

import (
	"container/list"
	"context"
	"fmt"
	"time"

	"carrel/protocol"
)

// workerState is where a worker stands in its life.
//
//	           no user yet           claimed for a user
//	starting ───────────────► ready ───────────────► binding
//	   │  └─────────────────────┼─ for a user ─────────►│
//	   │                        │                       │ initialized
//	   │                        │                       ▼        run lent
//	   │                        │                     idle ────────────────► busy
//	   │                        │                       │ ◄──────────────────  │
//	   │                        │                       │   last run ended     │
//	   │ start failed,          │ died,                 │ idle too long,       │ last run
//	   │ not wanted             │ not wanted            │ room needed, died    │ allowed, died
//	   ▼                        ▼                       ▼                      ▼
//	draining ◄──────────────────┴───────────────────────┴──────────────────────┘
//	   │    takes no new run; ends when its runs have (or is killed with them)
//	   ▼
//	 dead   the whole tree is gone
//
// (binding, too, goes to draining, when it fails.) A worker counts against
// MaxWorkers in every state but dead.
type workerState uint8

const (
	starting workerState = iota
	ready                // warm: jailed up to the point of binding, nobody's yet
	binding              // being given to its user
	idle
	busy
	draining
	dead

	workerStates = iota
)

func (s workerState) String() string {
	return [workerStates]string{"starting", "ready", "binding", "idle", "busy", "draining", "dead"}[s]
}

// shown is the state in the API's words, which know no binding.
func (s workerState) shown() protocol.SandboxState {
	switch s {
	case ready:
		return protocol.SandboxReady
	case idle:
		return protocol.SandboxIdle
	case busy:
		return protocol.SandboxBusy
	case draining, dead:
		return protocol.SandboxDraining
	case starting, binding:
	}
	return protocol.SandboxStarting
}

// mayBecome is the drawing above as a table.
func (s workerState) mayBecome(to workerState) bool {
	switch s {
	case starting:
		return to == ready || to == binding || to == draining
	case ready:
		return to == binding || to == draining
	case binding:
		return to == idle || to == draining
	case idle:
		return to == busy || to == draining
	case busy:
		return to == idle || to == draining
	case draining:
		return to == dead
	case dead:
	}
	return false
}

// state is all that the pool shares between goroutines. Only the function given
// to Pool.update touches it, under the pool's mutex.
type state struct {
	o   *Options
	now time.Time // of this update, with its monotonic part

	root     context.Context //nolint:containedctx // of all workers; nil before Run.
	running  bool            // Run has begun
	closing  bool            // Shutdown has begun: nobody new
	stopped  bool            // Run is ending: nothing new at all
	gone     bool            // closing or stopped, and no worker is left
	wake     time.Time       // when the clock must call settle again; zero = not by itself
	alarm    time.Time       // what the clock sleeps until; zero = a signal
	workers  map[*worker]struct{}
	count    [workerStates]int
	ready    list.List // of *worker, first started in front
	idle     list.List // of *worker, longest idle in front
	yielders list.List // of *worker, see doc.go

	users   map[string]*user
	ring    list.List // of *user with waiting runs, in order of their tickets
	tickets uint64    // given out so far
	queued  int       // waiting runs that no start under way will serve
	watched int       // waiting runs whose caller wants to know their place
	moved   bool      // places may have changed

	unclaimed int // starting without a user
	ending    int // draining without runs: their room comes free any moment
	stranded  int // users who wait for a worker for whom no room is coming
	waiting   int // users who wait for a worker at all, these included

	starts      breaker   // of starts that users wait for
	refills     breaker   // of starts of warm workers, which users do not notice
	servedAt    time.Time // when a worker was last made available to its user
	binds       breakers  // of binding, for each user
	noRoomUntil time.Time
	hold        time.Duration // how long a lease is held, a moving average

	effects []effect
}

// become moves a worker to another state and keeps the counts.
func (s *state) become(w *worker, to workerState) {
	if !w.state.mayBecome(to) {
		panic(fmt.Sprintf("pool: worker %d may not go from %s to %s", w.id, w.state, to))
	}
	s.leave(w)
	s.count[w.state]--
	w.state = to
	if to != dead {
		s.count[to]++
	}
}

// leave takes a worker off the lists its present state keeps it on.
func (s *state) leave(w *worker) {
	switch w.state {
	case starting:
		if w.user == nil {
			s.unclaimed--
		}
	case ready:
		s.ready.Remove(w.listed)
	case idle:
		s.idle.Remove(w.listed)
	case busy:
		s.stopYielding(w)
	case draining:
		if w.ending {
			s.ending--
		}
	case binding, dead:
	}
	w.listed = nil
}

// live counts the workers that hold room.
func (s *state) live() int { return len(s.workers) }

// effect is something to be done to the world once the mutex is free.
type effect struct {
	kind effectKind
	w    *worker
	wt   *waiter
	ctx  context.Context //nolint:containedctx // on its way to a goroutine.
	err  error
}

type effectKind uint8

const (
	launch     effectKind = iota // w's goroutine, with ctx
	claim                        // tell w's goroutine that it has a user
	finish                       // tell w's goroutine to end the worker politely
	kill                         // tell w's goroutine to end the worker at once
	cancelRuns                   // end w's runs with err
	mourn                        // tell whoever waits for w's end
	answer                       // wake wt
	signal                       // wake the clock
	empty                        // tell whoever waits for the last worker
)

func (s *state) do(e effect) { s.effects = append(s.effects, e) }

// carryOut does what an update has left to do.
func (p *Pool) carryOut(e effect) {
	switch e.kind {
	case launch:
		p.group.Go(func() { p.live(e.ctx, e.w) })
	case claim:
		close(e.w.claimed)
	case finish:
		close(e.w.finish)
	case kill:
		e.w.stop(errKilled)
	case cancelRuns:
		e.w.calls.end(e.err)
	case mourn:
		close(e.w.gone)
	case answer:
		close(e.wt.answered)
	case signal:
		select {
		case p.signal <- struct{}{}:
		default: // One is there already, and the clock will read the newest state.
		}
	case empty:
		close(p.empty)
	}
}
