package pool

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"carrel/internal/engine"
	"carrel/internal/jsonrpc"
	"carrel/protocol"
)

const (
	// answerSlack is what a worker gets beyond CancelGrace: it kills the run's
	// tree when the grace is over, and then has to say so.
	answerSlack = 2 * time.Second
	// exitGrace is how long a worker that was asked to exit, or whose stream has
	// ended, may take to be gone before it is killed.
	exitGrace = 2 * time.Second
	// suspectGrace is the same after a broken line: either the worker is dead,
	// and the process will be gone at once, or it is not to be trusted.
	suspectGrace = 50 * time.Millisecond
)

var (
	errStartTimeout = errors.New("start took too long")
	errVersion      = errors.New("it speaks another version of the protocol: carrel and carrel-worker must be of one build")
)

func (o *Options) answerTime() time.Duration { return o.CancelGrace + answerSlack }

// live is the whole life of one worker, in its own goroutine. It returns when
// nothing of the worker is left.
func (p *Pool) live(ctx context.Context, w *worker) {
	defer w.stop(nil)
	var (
		exit  protocol.ExitCause
		talks sync.WaitGroup // the connection and what uses it

		born, byItself bool
	)
	defer talks.Wait()
	if proc := p.start(ctx, w); proc != nil {
		born = true
		p.attend(ctx, w, proc, &talks)
		byItself = isClosed(proc.Done())
		proc.Kill()
		<-proc.Done()
		exit = proc.Exit()
		if w.link != nil {
			w.link.Close()
		}
	}
	var (
		death  *DeathError
		reason EndReason
	)
	p.update(func(s *state) {
		death = deathOf(w.fate, exit)
		reason = w.endReason(w.fate, exit, byItself)
		s.buried(w, death)
	})
	if born && p.o.Ended != nil {
		p.o.Ended(reason)
	}
	p.o.Logger.LogAttrs(ctx, slog.LevelDebug, "worker ended", slog.String("how", death.Err.Message))
}

// start makes the process, if the host has room. It returns nil if there is none.
func (p *Pool) start(ctx context.Context, w *worker) engine.Process {
	if p.o.Pressure != nil {
		if pressure := p.o.Pressure(); pressure.NoRoom {
			p.o.Logger.LogAttrs(ctx, slog.LevelInfo, "no room for another worker", slog.String("reason", pressure.Reason))
			p.update(func(s *state) { s.foundNoRoom(w) })
			return nil
		}
	}
	kind := SpareStart
	if !w.spare {
		kind = ColdStart
	}
	w.beginStart(kind, w.startedAt, nil)
	startCtx, cancel := context.WithTimeoutCause(ctx, p.o.StartupTimeout, errStartTimeout)
	defer cancel()
	var spec engine.Spec
	if !w.spare { // A spare one's user is not this goroutine's to read yet.
		spec.UserID = w.user.id
	}
	proc, err := p.engine.Start(startCtx, spec)
	if err != nil {
		p.startFailed(ctx, w, nil, stepStart, timedOut(startCtx, err))
		return nil
	}
	return proc
}

// timedOut names the time limit where that is why a step failed.
func timedOut(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); errors.Is(cause, errStartTimeout) && !errors.Is(err, errStartTimeout) {
		return errors.Join(cause, err)
	}
	return err
}

// attend leads a started process through its life until it is to be killed (or
// is dead already). What it starts is in talks.
func (p *Pool) attend(ctx context.Context, w *worker, proc engine.Process, talks *sync.WaitGroup) {
	var wanted bool
	p.update(func(s *state) { wanted = s.started(w, proc) })
	if wanted && w.spare {
		p.startEnded(w, proc, nil)
	}
	if !wanted || !p.awaitUser(ctx, w, proc) {
		return
	}
	if w.spare {
		w.beginStart(WarmStart, time.Now(), proc)
	}
	deadline := w.start.Began.Add(p.o.StartupTimeout)
	startCtx, cancel := context.WithDeadlineCause(ctx, deadline, errStartTimeout)
	defer cancel()
	if err := p.bind(startCtx, w, proc); err != nil {
		p.startFailed(ctx, w, proc, stepBind, timedOut(startCtx, err))
		return
	}
	conn := jsonrpc.NewConn(proc.Stream(), &host{pool: p, w: w}, jsonrpc.Options{
		MaxLineBytes: protocol.MaxLineBytes,
		MaxRequests:  maxQuestions,
		Queue:        maxUnread,
		CancelGrace:  p.o.answerTime(),
	})
	// Its error is conn.Err's.
	talks.Go(func() { _ = conn.Run(ctx) })
	asked := time.Now()
	if err := p.initialize(startCtx, w, conn, talks); err != nil {
		p.startFailed(ctx, w, proc, stepInitialize, p.explainStart(startCtx, err, proc))
		return
	}
	w.handshook(time.Since(asked))
	p.startEnded(w, proc, nil)
	p.update(func(s *state) { s.initialized(w, conn) })
	p.serve(ctx, w, conn, talks)
}

// awaitUser waits, with a warm worker, for its user. It reports whether one came.
func (p *Pool) awaitUser(ctx context.Context, w *worker, proc engine.Process) bool {
	if !w.spare {
		return true
	}
	select {
	case <-w.claimed:
		return true
	case <-ctx.Done():
		return false
	case <-proc.Done():
	}
	p.update(func(s *state) { s.diedWarm(w, proc.Exit()) })
	select {
	case <-w.claimed: // Just before. Its Bind will fail, and that is told.
		return true
	default:
		return false
	}
}

// bind gives the process to its user, with a line to the broker.
func (p *Pool) bind(ctx context.Context, w *worker, proc engine.Process) (err error) {
	binding := engine.Binding{UserID: w.user.id}
	if p.o.Connect != nil {
		if w.link, binding.Broker, err = p.o.Connect(w.user.id); err != nil {
			return err
		}
		defer func() { _ = binding.Broker.Close() }()
	}
	return proc.Bind(ctx, binding)
}

// initialize is the handshake.
func (p *Pool) initialize(ctx context.Context, w *worker, conn *jsonrpc.Conn, talks *sync.WaitGroup) error {
	params := protocol.InitializeParams{
		ProtocolVersion: protocol.Version,
		UserID:          w.user.id,
		Agent:           p.o.Agent,
		Limits:          p.o.Limits,
		Permissions:     p.o.Permissions.ForWorker(),
		ApprovalSeconds: p.o.ApprovalTimeout.Seconds(),
	}
	var result protocol.InitializeResult
	answered := make(chan error, 1)
	talks.Go(func() { answered <- conn.Call(ctx, protocol.MethodInitialize, params, &result) })
	select {
	case err := <-answered:
		if err != nil {
			return err
		}
	case <-ctx.Done():
		// Call would wait for the answer to its cancel. There is no time left for
		// one; the end of the connection, which is next, ends the call.
		return context.Cause(ctx)
	}
	if result.ProtocolVersion != protocol.Version {
		return errVersion
	}
	return nil
}

// explainStart tells, where the connection broke off during the handshake, how
// the process ended.
func (p *Pool) explainStart(ctx context.Context, err error, proc engine.Process) error {
	if !errors.Is(err, jsonrpc.ErrClosed) {
		return timedOut(ctx, err)
	}
	if !waitAtMost(exitGrace, proc.Done()) {
		return err
	}
	return errors.New("worker ended: " + describe(proc.Exit()))
}

// startFailed tells the state, and the log: users only hear of it if it lasts.
func (p *Pool) startFailed(ctx context.Context, w *worker, proc engine.Process, step string, err error) {
	death := startDeath(step, err)
	var counted bool
	p.update(func(s *state) { counted = s.startFailed(w, step, death) })
	if counted {
		p.startEnded(w, proc, death)
		p.o.Logger.LogAttrs(ctx, slog.LevelWarn, "worker start failed", slog.String("step", step), slog.Any("err", err))
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// waitAtMost waits for done, and reports whether it came.
func waitAtMost(d time.Duration, done <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		return false
	}
}
