package pool

import (
	"context"
	"time"

	"carrel/protocol"
)

// AcquireOptions are the wishes of one Acquire.
type AcquireOptions struct {
	// Queued is called, from Acquire's goroutine, when the run has to wait and
	// each time its place in the queue changes (1 = next); it must be quick.
	// Waiting for one's own worker to start is no waiting in the queue.
	Queued func(place int)
}

// Acquire lends the user's worker for one run, starting it if need be. It waits
// for its turn, at most QueueTimeout and then as long as the start of the user's
// worker takes, if that is under way. Errors:
//
//   - CodeQueueFull, CodeQueueTimeout: there is no room; with RetryAfter. A run
//     that waits already is told the former when it is the newest of the user who
//     has the most waiting, and another user comes to the full queue.
//   - CodeWorkerStartFailed, CodeIsolationUnavailable: a *[DeathError] that names
//     the step. A start that failed is tried again within the queue time, until
//     five in a row have.
//   - CodeCanceled: the user's sandbox was retired meanwhile.
//   - CodeShuttingDown, CodeInvalidRequest, and what ended ctx.
//
// A lease must be released.
func (p *Pool) Acquire(ctx context.Context, userID string, o AcquireOptions) (*Lease, error) {
	if err := protocol.CheckUserID(userID); err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	var (
		lease *Lease
		wt    *waiter
		err   error
	)
	p.update(func(s *state) { lease, wt, err = s.acquire(userID, o.Queued != nil) })
	if wt != nil {
		lease, err = p.await(ctx, wt, o)
	}
	if err != nil {
		return nil, err
	}
	lease.pool = p
	return lease, nil
}

func (p *Pool) await(ctx context.Context, wt *waiter, o AcquireOptions) (*Lease, error) {
	timeout := time.NewTimer(p.o.QueueTimeout)
	defer timeout.Stop()
	for {
		select {
		case <-wt.answered:
			return wt.lease, wt.err
		case place := <-wt.moved:
			o.Queued(place)
		case <-timeout.C:
			p.update(func(s *state) { s.expire(wt) })
		case <-ctx.Done():
			p.update(func(s *state) { s.refuse(wt, context.Cause(ctx)) })
			<-wt.answered
			if wt.err != nil {
				return nil, wt.err
			}
			// The lease came at the same moment. Nobody is there to use it.
			p.update(func(s *state) { s.release(wt.lease) })
			return nil, context.Cause(ctx)
		}
	}
}
