package pool

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"carrel/internal/jsonrpc"
	"carrel/protocol"
)

// Lease is a worker lent for one run or one command.
type Lease struct {
	pool     *Pool
	w        *worker
	since    time.Time
	oomKills int64 // of the worker's tree, before the run
	released atomic.Bool
}

// LostToMemory reports whether the kernel has killed a process of the sandbox for
// want of memory since Execute or Exec began. Which run's it was, of several that
// go on at a time, it cannot tell.
func (l *Lease) LostToMemory() bool { return l.w.proc.OOMKills() > l.oomKills }

// Release gives the worker back; more than once is once. Call it after Execute
// or Exec has returned.
func (l *Lease) Release() {
	if l.released.Swap(true) {
		return
	}
	var rests bool
	l.pool.update(func(s *state) { rests = s.release(l) })
	if mark := l.pool.o.MemoryMarkBytes; rests && mark > 0 && l.w.proc.Usage().MemoryBytes > mark {
		l.pool.update(func(s *state) {
			if l.w.state == idle { // Else it is in use again, and judged after that.
				s.drain(l.w)
			}
		})
	}
}

// Link is the host's end of the worker's line to the broker; nil = it has none.
func (l *Lease) Link() Link { return l.w.link }

// Worker is the number of the worker, unique in this pool.
func (l *Lease) Worker() uint64 { return l.w.id }

// Start is how the worker came to be its user's, for this run or an earlier one.
func (l *Lease) Start() Start { return l.w.start }

// Execute runs params on the worker and hands each of its events to sink, in
// order, checked: the run's own, numbered from 1 without a gap, RUN_STARTED
// first, nothing after the end. The sink is called from the goroutine that reads
// the worker's stream and may block: the worker then has to wait. Once sink has
// returned an error it is not called again, the run is canceled and Execute
// returns that error. After Execute has returned, sink is not called.
//
// When ctx ends, the worker is told to cancel the run and has CancelGrace and
// two seconds more to answer; if it does not, it is killed. Either way Execute
// returns ctx's cause: *protocol.Error as it was given, else CodeRunTimeout for
// a deadline and CodeCanceled for all others. (If the run ends well within the
// grace, its result is returned.) Other errors: the worker's own answer, and
// *[DeathError] if the worker ended.
func (l *Lease) Execute(ctx context.Context, params protocol.ExecuteParams, sink func(protocol.EventParams) error) (protocol.Result, error) {
	var result protocol.Result
	if params.RunID == "" {
		return result, protocol.Errorf(protocol.CodeInvalidRequest, "run_id: must not be empty")
	}
	run := &runStream{id: params.RunID, sink: sink}
	err := l.call(ctx, run, protocol.MethodExecute, params, &result)
	if err == nil || isReply(err) {
		if fault := run.checkEnd(err == nil); fault != nil {
			return protocol.Result{}, l.condemn(ctx, violation(fault))
		}
	}
	if err != nil {
		return protocol.Result{}, l.explain(err)
	}
	return result, nil
}

// Exec runs one command. With a sink its output is streamed besides, under the
// rules of [Lease.Execute]; without an ExecID it then gets one.
func (l *Lease) Exec(ctx context.Context, params protocol.ExecParams, sink func(protocol.ExecOutputParams) error) (protocol.ExecResult, error) {
	params.Stream = sink != nil
	if params.ExecID == "" {
		params.ExecID = fmt.Sprintf("exec_%d", l.w.calls.number())
	}
	var result protocol.ExecResult
	err := l.call(ctx, &execStream{id: params.ExecID, sink: sink}, protocol.MethodExec, params, &result)
	if err != nil {
		return protocol.ExecResult{}, l.explain(err)
	}
	return result, nil
}

// reply is an error that the worker itself answered with.
type reply struct{ err error }

func (r *reply) Error() string { return r.err.Error() }
func (r *reply) Unwrap() error { return r.err }

func isReply(err error) bool {
	_, ok := errors.AsType[*reply](err)
	return ok
}

// call makes one request of the worker and delivers its stream meanwhile.
func (l *Lease) call(ctx context.Context, st stream, method string, params, result any) error {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	if err := l.w.calls.add(st, end); err != nil {
		return err
	}
	defer l.w.calls.remove(st)
	l.oomKills = l.w.proc.OOMKills()

	// The connection gets a context of its own, whose cause is no one else's: it
	// comes back only if the worker did not answer.
	unanswered := &noReply{method: method}
	callCtx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	stop := context.AfterFunc(ctx, func() {
		unanswered.since.Store(&instant{time.Now()})
		cancel(unanswered)
	})
	defer stop()
	err := l.w.conn.Call(callCtx, method, params, result)
	switch {
	case err == nil:
		return st.failure()
	case errors.Is(err, unanswered):
		if unanswered.waited() < l.pool.o.answerTime() {
			// The request was never sent, or the connection ended: no blame.
			return causeOf(ctx)
		}
		return l.condemn(ctx, noAnswer("no answer to the cancel of a run within %s", l.pool.o.answerTime()))
	case errors.Is(err, jsonrpc.ErrClosed):
		return l.death(ctx)
	case errors.Is(err, jsonrpc.ErrProtocol):
		return l.condemn(ctx, violation(err))
	case ctx.Err() != nil:
		return &reply{causeOf(ctx)}
	default:
		return &reply{err}
	}
}

// noReply is the cause of a call's context: the caller does not wait any longer.
type noReply struct {
	method string
	since  atomic.Pointer[instant]
}

type instant struct{ time.Time }

func (n *noReply) Error() string { return "no answer to " + n.method }

func (n *noReply) waited() time.Duration { return time.Since(n.since.Load().Time) }

// condemn kills the worker for what it did to this call.
func (l *Lease) condemn(ctx context.Context, f *fate) error {
	l.pool.update(func(s *state) { s.doom(l.w, f) })
	return l.death(ctx)
}

// death waits for the worker's end and returns what the run is told: why it was
// to end anyway, else how the worker died.
func (l *Lease) death(ctx context.Context) error {
	stuck := time.NewTimer(reaping)
	defer stuck.Stop()
	select {
	case <-l.w.gone:
	case <-stuck.C:
		return protocol.Errorf(protocol.CodeWorkerCrashed, "worker ended, but its processes are still there after %s", reaping)
	}
	if ctx.Err() != nil {
		return causeOf(ctx)
	}
	return l.w.death
}

// explain puts an error that carries no code of ours into words that do.
func (l *Lease) explain(err error) error {
	if r, ok := errors.AsType[*reply](err); ok {
		err = r.err
	}
	if _, ok := errors.AsType[*protocol.Error](err); ok {
		return err
	}
	if _, ok := errors.AsType[*jsonrpc.Error](err); ok {
		return protocol.Errorf(protocol.CodeAgentError, "worker refused: %w", err)
	}
	return err
}

// causeOf tells why ctx ended, with a code.
func causeOf(ctx context.Context) error {
	cause := context.Cause(ctx)
	if _, ok := errors.AsType[*protocol.Error](cause); ok {
		return cause
	}
	switch {
	case errors.Is(cause, context.DeadlineExceeded):
		return protocol.Errorf(protocol.CodeRunTimeout, "the run took too long: %w", cause)
	case errors.Is(cause, context.Canceled):
		return protocol.Errorf(protocol.CodeCanceled, "the run was canceled: %w", cause)
	default:
		return cause
	}
}
