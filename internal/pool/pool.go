package pool

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"carrel/internal/engine"
	"carrel/protocol"
)

// Options bound a pool. A duration or count that is zero takes the default named
// behind it, unless zero has a meaning of its own.
type Options struct {
	MaxWorkers     int // live processes, in whatever state; 10
	Warm           int // started and nobody's yet; 0 = none
	MaxRequests    int // runs a worker serves before it is replaced; 0 = no limit
	MaxRunsPerUser int // at a time, all on the user's one worker; 4
	QueueSize      int // runs that wait for a worker; 0 = nobody waits

	QueueTimeout   time.Duration // 30s
	StartupTimeout time.Duration // from start, or from the claim of a warm one, to handshake; 30s
	IdleTimeout    time.Duration // 300s
	PingInterval   time.Duration // 0 = no pings
	PingTimeout    time.Duration // without any sign of life; 10s
	CancelGrace    time.Duration // that a canceled run has to end in; 5s

	// MemoryMarkBytes is what a worker may hold between runs; one past it is
	// replaced. 0 = no mark.
	MemoryMarkBytes int64
	// Pressure is asked before each start whether the host has room for another
	// worker; nil = always. It may block for a moment.
	Pressure func() Pressure

	Agent     string // default agent of a worker's runs
	Limits    protocol.WorkerLimits
	Isolation string // "strict" or "degraded", shown on each sandbox
	// Approve answers a worker that asks whether a tool may be used; nil denies.
	// Its context ends with the worker or when the worker takes the question back.
	Approve func(ctx context.Context, userID string, p protocol.ApproveParams) (protocol.ApproveResult, error)

	// Permissions are what workers hold their runs' tools to; a worker gets them
	// without webhooks' URLs. Hook asks a webhook on a worker's behalf; nil: nobody.
	Permissions protocol.Permissions
	Hook        func(ctx context.Context, userID string, p protocol.HookParams) (protocol.HookResult, error)
	// Denied is told what a worker says that its sandbox has denied a going run or
	// command of its; nil = nobody wants to know. It must not block for long.
	Denied func(userID string, p protocol.DeniedParams)
	// Decided is the same for what was decided of a tool.
	Decided func(userID string, p protocol.DecidedParams)
	// Started is told of each start that has come to an end, well or not, and Ended of
	// each worker that is gone; nil = nobody wants to know. They must not block.
	Started func(Start)
	Ended   func(EndReason)
	// ApprovalTimeout is how long Approve takes at most, for the worker to tell.
	ApprovalTimeout time.Duration
	// Connect makes a worker's line to the broker, when it is bound: the host's end,
	// which the pool closes once the worker is gone, and the worker's own, which it
	// closes at once. nil = workers have none.
	Connect func(userID string) (Link, *os.File, error)

	Logger *slog.Logger   // nil = no log
	Rand   func() float64 // in [0,1), spreads the backoff; nil = math/rand
}

// Link is the host's end of a worker's line to the broker.
type Link interface{ Close() }

// Pressure is what the host says about its memory.
type Pressure struct {
	NoRoom bool
	Reason string // "80 MiB available, 256 MiB kept free"; for the log
}

func (o *Options) setDefaults() {
	o.MaxWorkers = orDefault(o.MaxWorkers, 10)
	o.MaxRunsPerUser = orDefault(o.MaxRunsPerUser, 4)
	o.QueueTimeout = orDefault(o.QueueTimeout, 30*time.Second)
	o.StartupTimeout = orDefault(o.StartupTimeout, 30*time.Second)
	o.IdleTimeout = orDefault(o.IdleTimeout, 300*time.Second)
	o.PingTimeout = orDefault(o.PingTimeout, 10*time.Second)
	o.CancelGrace = orDefault(o.CancelGrace, 5*time.Second)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Rand == nil {
		o.Rand = rand.Float64
	}
}

func orDefault[T int | time.Duration](v, otherwise T) T {
	if v <= 0 {
		return otherwise
	}
	return v
}

// Pool lends workers to runs. It is safe for concurrent use.
type Pool struct {
	o      Options
	engine engine.Engine
	group  sync.WaitGroup // of the workers' goroutines
	signal chan struct{}  // to the clock: look at state.alarm
	empty  chan struct{}  // closed when nothing new may come and no worker is left

	mu    sync.Mutex
	state state
}

// New makes a pool that starts its workers through e. Nothing happens before
// [Pool.Run]; who acquires earlier waits in the queue.
func New(e engine.Engine, o Options) *Pool {
	o.setDefaults()
	p := &Pool{
		o:      o,
		engine: e,
		signal: make(chan struct{}, 1),
		empty:  make(chan struct{}),
	}
	p.state = state{
		o:       &p.o,
		workers: make(map[*worker]struct{}),
		users:   make(map[string]*user),
		starts:  breaker{rand: o.Rand},
		refills: breaker{rand: o.Rand},
		binds:   breakers{rand: o.Rand, byUser: make(map[string]*list.Element)},
	}
	return p
}

// update changes the state, settles it, and then does to the world what follows.
func (p *Pool) update(change func(*state)) {
	p.mu.Lock()
	p.state.now = time.Now()
	change(&p.state)
	p.state.settle()
	effects := p.state.effects
	p.state.effects = nil
	p.mu.Unlock()
	for _, e := range effects {
		p.carryOut(e)
	}
}

// Run owns the pool's goroutines (see the package's comment) and returns when
// they have ended: after Shutdown, or, when ctx ends, after killing every worker.
// It may be called once. The error tells of workers that could not be killed.
func (p *Pool) Run(ctx context.Context) error {
	var again bool
	p.update(func(s *state) {
		again = s.running
		s.running = true
		if !again {
			// Not ctx itself: its end must find each worker's fate written down
			// before the worker's goroutine hears of it.
			s.root = context.WithoutCancel(ctx)
		}
	})
	if again {
		return errors.New("run pool: it runs already")
	}
	p.keepTime(ctx)
	p.update(func(s *state) {
		s.stopped = true
		s.turnAway()
		s.doomAll()
	})
	if err := p.awaitEmpty(); err != nil {
		return fmt.Errorf("stop pool: %w", err)
	}
	p.group.Wait()
	return nil
}

// Shutdown ends the pool: whoever waits or comes is answered CodeShuttingDown,
// workers end as their runs do. When ctx ends, the rest is killed, and its runs
// end with CodeShuttingDown. Afterwards no process is left; the error tells if
// one is.
func (p *Pool) Shutdown(ctx context.Context) error {
	p.update(func(s *state) {
		s.closing = true
		s.turnAway()
		s.drainAll()
	})
	select {
	case <-p.empty:
		return nil
	case <-ctx.Done():
	}
	p.update((*state).doomAll)
	if err := p.awaitEmpty(); err != nil {
		return fmt.Errorf("shut down pool: %w", err)
	}
	return nil
}

// awaitEmpty waits for the last worker's end.
func (p *Pool) awaitEmpty() error {
	stuck := time.NewTimer(reaping)
	defer stuck.Stop()
	select {
	case <-p.empty:
		return nil
	case <-stuck.C:
		return fmt.Errorf("%d workers are still there %s after they were killed", p.Figures().Workers, reaping)
	}
}

// turnAway answers everybody who waits.
func (s *state) turnAway() {
	for e := s.ring.Front(); e != nil; e = s.ring.Front() {
		s.refuseAll(e.Value.(*user), errShuttingDown())
	}
}

func (s *state) drainAll() {
	for w := range s.workers {
		s.drain(w)
	}
}

func (s *state) doomAll() {
	err := errShuttingDown()
	for w := range s.workers {
		s.doom(w, &fate{code: err.Code, message: err.Message})
	}
}
