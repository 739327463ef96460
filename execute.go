package carrel

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"iter"
	"sync/atomic"
	"time"

	"github.com/oklog/ulid/v2"

	"carrel/internal/audit"
	"carrel/internal/logline"
	"carrel/internal/pool"
	"carrel/internal/store"
	"carrel/internal/tracing"
	"carrel/protocol"
)

// goingRun is a run between its record and its ending.
type goingRun struct {
	cancel context.CancelCauseFunc
	ctx    context.Context //nolint:containedctx // the run's own: whom lines of the log are about
	span   tracing.Span
	place  atomic.Int64 // in the pool's queue; 0 = it does not wait
	about  audit.Event  // whose it is, for its lines in the audit log
}

// Execute records a run and sets it going. It is durable when Execute returns,
// and goes on whatever happens to ctx afterwards. Errors: CodeInvalidRequest,
// CodeNotFound (an attachment), CodeTooLarge, CodeShuttingDown.
func (o *Orchestrator) Execute(ctx context.Context, req protocol.ExecuteRequest) (protocol.Run, error) {
	run, _, err := o.execute(ctx, req, callerOf(ctx), "")
	return run, err
}

// execute is Execute for a caller that may repeat itself: with the key of an
// earlier run it returns that run.
func (o *Orchestrator) execute(ctx context.Context, req protocol.ExecuteRequest, caller, key string) (run protocol.Run, existing bool, err error) {
	if run, existing, err = o.submit(ctx, req, caller, key); err != nil {
		o.note(ctx, audit.Event{Action: audit.RunSubmitted, Caller: caller, UserID: req.UserID, SessionID: req.SessionID}, err)
	}
	return run, existing, err
}

func (o *Orchestrator) submit(ctx context.Context, req protocol.ExecuteRequest, caller, key string) (run protocol.Run, existing bool, err error) {
	if err := o.checkRequest(&req); err != nil {
		return protocol.Run{}, false, err
	}
	logline.Fill(ctx, logline.Fields{UserID: req.UserID, Session: req.SessionID})
	if err := o.auditable(ctx); err != nil {
		return protocol.Run{}, false, err
	}
	if err := o.enter(); err != nil {
		return protocol.Run{}, false, err
	}
	defer o.runsWG.Done()
	asked := req
	if err := o.findAttachments(ctx, &req); err != nil {
		return protocol.Run{}, false, err
	}
	if req.SessionID == "" {
		req.SessionID = newID("session-")
	}
	if req.Config.Agent == "" {
		req.Config.Agent = o.cfg.Agent
	}
	run, existing, err = o.store.CreateRun(ctx, store.NewRun{
		RunID:          newID("run_"),
		UserID:         req.UserID,
		SessionID:      req.SessionID,
		Agent:          req.Config.Agent,
		Request:        asked,
		Caller:         caller,
		IdempotencyKey: key,
	})
	if err != nil || existing {
		logline.Fill(ctx, logline.Fields{Run: run.RunID, UserID: run.UserID, Session: run.SessionID})
		return run, existing, err
	}
	g := &goingRun{about: audit.Event{
		Caller: caller, UserID: run.UserID, RunID: run.RunID, SessionID: run.SessionID, Agent: run.Agent,
	}}
	g.ctx = o.traceRun(tracing.Carry(logline.Carry(o.root, ctx), ctx), "run", g)
	logline.Fill(g.ctx, logline.Fields{Run: run.RunID, UserID: run.UserID, Session: run.SessionID}) //nolint:contextcheck // a run outlives the caller who asked for it
	o.log.InfoContext(g.ctx, "run accepted", "caller", caller, "agent", run.Agent)                  //nolint:contextcheck // as above
	o.begin(g, run, req)                                                                            //nolint:contextcheck // as above
	return run, false, nil
}

// begin sets a run going. One that cannot be written down, and must be, ends before
// it has a worker.
func (o *Orchestrator) begin(g *goingRun, run protocol.Run, req protocol.ExecuteRequest) {
	ctx, cancel := context.WithCancelCause(g.ctx)
	g.cancel = cancel
	e := g.line(audit.RunSubmitted)
	e.Decision, e.Content = audit.Allow, req.Message
	if err := o.unaudited(o.audit.Write(ctx, e)); err != nil {
		cancel(err)
	}
	o.mu.Lock()
	o.going[run.RunID] = g
	o.mu.Unlock()
	o.runsWG.Go(func() { o.carryOut(ctx, g, run, req) })
}

// enter counts a caller in, so that Shutdown waits for it, or refuses it.
func (o *Orchestrator) enter() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.closing {
		return protocol.Errorf(protocol.CodeShuttingDown, "the daemon is shutting down")
	}
	o.runsWG.Add(1)
	return nil
}

func (o *Orchestrator) checkRequest(req *protocol.ExecuteRequest) error {
	if err := protocol.CheckUserID(req.UserID); err != nil {
		return err
	}
	if req.SessionID != "" {
		if err := protocol.CheckSessionID(req.SessionID); err != nil {
			return err
		}
	}
	switch {
	case req.Message == "":
		return protocol.Errorf(protocol.CodeInvalidRequest, "message: must not be empty")
	case len(req.Message) > protocol.MaxMessageBytes:
		return protocol.Errorf(protocol.CodeTooLarge, "message: %d bytes, at most %d are allowed", len(req.Message), protocol.MaxMessageBytes)
	case req.Config.Agent != "":
		if err := o.cfg.checkAgent(req.Config.Agent); err != nil {
			return protocol.Errorf(protocol.CodeInvalidRequest, "config.agent %.60q: %w; there is %q", req.Config.Agent, err, o.cfg.agents())
		}
	}
	return nil
}

// carryOut takes a run from the queue to its ending.
func (o *Orchestrator) carryOut(ctx context.Context, g *goingRun, run protocol.Run, req protocol.ExecuteRequest) {
	defer g.cancel(nil)
	r := &recorder{
		store: o.store, runID: run.RunID, questions: o.approvals,
		audit: o.audit, about: g.about, began: time.Now(), metrics: o.metrics, tools: o.traceTools(ctx),
	}
	defer o.audit.Settle(context.WithoutCancel(ctx), run.UserID)
	defer o.approvals.forget(run.RunID)
	defer func() { g.endTrace(r.ending, r.meter.Usage()) }()
	err := o.work(ctx, g, r, run, req)
	if err != nil {
		o.log.InfoContext(ctx, "run ended in an error", "code", protocol.CodeOf(err), "error", err, "took", time.Since(r.began))
	} else {
		o.log.InfoContext(ctx, "run ended", "took", time.Since(r.began))
	}
	if !r.ended {
		if err == nil {
			err = protocol.Errorf(protocol.CodeWorkerProtocolError, "the worker gave a result without an ending")
		}
		o.insist(ctx, r, err)
	}
	o.mu.Lock()
	delete(o.going, run.RunID)
	o.mu.Unlock()
}

// insist records a run's ending until the store takes it: a full disk must not
// leave a run without one. A daemon that ends first leaves it to its successor.
func (o *Orchestrator) insist(ctx context.Context, r *recorder, cause error) {
	const first, most = 100 * time.Millisecond, 10 * time.Second
	ctx = context.WithoutCancel(ctx)
	for wait := first; ; wait = min(2*wait, most) {
		err := r.end(ctx, cause)
		if err == nil {
			return
		}
		o.log.ErrorContext(ctx, "ending of run is not stored", "error", err)
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-o.root.Done():
			timer.Stop()
			return
		}
		if o.isClosing() {
			return
		}
	}
}

func (o *Orchestrator) countGoing() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.going)
}

func (o *Orchestrator) isClosing() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.closing
}

func (o *Orchestrator) work(ctx context.Context, g *goingRun, r *recorder, run protocol.Run, req protocol.ExecuteRequest) error {
	lease, err := o.acquire(ctx, req.UserID, func(place int) { g.place.Store(int64(place)) })
	g.place.Store(0)
	if err != nil {
		return err
	}
	defer lease.Release()
	_ = o.audit.Write(ctx, g.line(audit.RunStarted)) // the line that is required is run_submitted
	r.lostToMemory = lease.LostToMemory
	ctx, disk, err := o.disk.begin(ctx, req.UserID)
	if err != nil {
		return err
	}
	defer disk.end()
	r.meter = o.meter(ctx, lease, run.RunID)
	defer r.meter.End()
	timeout := o.timeout(req.Config.TimeoutSeconds)
	ctx, cancel := context.WithTimeoutCause(ctx, timeout,
		protocol.Errorf(protocol.CodeRunTimeout, "the run took longer than %s", timeout))
	defer cancel()
	_, err = lease.Execute(ctx, protocol.ExecuteParams{
		RunID:       run.RunID,
		Message:     req.Message,
		Attachments: req.Attachments,
		SessionID:   req.SessionID,
		Config:      req.Config,
	}, func(ev protocol.EventParams) error {
		if ev.Type == protocol.EventRunFinished {
			if err := disk.settle(ctx); err != nil {
				return err
			}
		}
		return r.take(ctx, ev)
	})
	return err
}

// acquire gets the user's worker, and counts how long the turn took to come: not the
// start that followed.
func (o *Orchestrator) acquire(ctx context.Context, userID string, queued func(place int)) (*pool.Lease, error) {
	asked := time.Now()
	lease, err := o.pool.Acquire(ctx, userID, pool.AcquireOptions{Queued: queued})
	turn := time.Now()
	if err == nil {
		if began := lease.Start().Began; began.After(asked) {
			turn = began
		}
		logline.Fill(ctx, logline.Fields{Worker: lease.Worker()})
	}
	o.metrics.Waited(turn.Sub(asked))
	o.traceWait(ctx, asked, turn, lease)
	return lease, err
}

// timeout is the wall time of a run: the daemon's, or less if the request says so.
func (o *Orchestrator) timeout(seconds float64) time.Duration {
	asked := time.Duration(seconds * float64(time.Second))
	if asked > 0 && asked < o.cfg.WorkerTimeout {
		return asked
	}
	return o.cfg.WorkerTimeout
}

// Cancel asks a run to end; an ended one is no error. CodeNotFound if there is
// no such run.
func (o *Orchestrator) Cancel(ctx context.Context, runID string) error {
	o.mu.Lock()
	g := o.going[runID]
	o.mu.Unlock()
	if g != nil {
		o.note(ctx, audit.Event{
			Action: audit.RunCanceled, UserID: g.about.UserID, RunID: runID, SessionID: g.about.SessionID,
		}, nil)
		g.cancel(protocol.Errorf(protocol.CodeCanceled, "the run was canceled"))
		return nil
	}
	_, err := o.store.Run(ctx, runID)
	return err
}

// Run returns a run as it stands. CodeNotFound if there is none.
func (o *Orchestrator) Run(ctx context.Context, runID string) (protocol.Run, error) {
	run, err := o.store.Run(ctx, runID)
	if err != nil {
		return protocol.Run{}, err
	}
	o.mu.Lock()
	g := o.going[runID]
	o.mu.Unlock()
	if g != nil && run.Status == protocol.StatusQueued {
		run.QueuePlace = int(g.place.Load())
	}
	return run, nil
}

// Events gives a run's events with a seq greater than after, those stored and
// then those to come, until its ending.
func (o *Orchestrator) Events(ctx context.Context, runID string, after int64) iter.Seq2[protocol.Event, error] {
	return func(yield func(protocol.Event, error) bool) {
		reader, err := o.store.Events(ctx, runID, after)
		if err != nil {
			yield(protocol.Event{}, err)
			return
		}
		defer reader.Close()
		for {
			events, err := reader.Next(ctx)
			if errors.Is(err, io.EOF) {
				return
			}
			if err != nil {
				yield(protocol.Event{}, err)
				return
			}
			for _, ev := range events {
				if !yield(ev, nil) {
					return
				}
			}
		}
	}
}

// newID makes an id that is unique everywhere.
func newID(prefix string) string {
	return prefix + ulid.MustNew(ulid.Now(), rand.Reader).String()
}
