package pool

import (
	"context"
	"errors"
	"sync"
	"time"

	"carrel/internal/jsonrpc"
	"carrel/protocol"
)

// serve watches a bound worker until it has to be killed or is dead.
func (p *Pool) serve(ctx context.Context, w *worker, conn *jsonrpc.Conn, talks *sync.WaitGroup) {
	ping := p.newPinger(w)
	defer ping.timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.finish:
			p.askToExit(ctx, w, conn, talks)
			return
		case <-conn.Done():
			p.streamEnded(ctx, w, conn.Err())
			return
		case <-w.proc.Done():
			// Nothing more can come, but what came may still be on its way to a
			// sink: the runs get it before they are told of the end.
			p.update(func(s *state) { s.drain(w) })
			select {
			case <-conn.Done():
			case <-ctx.Done():
			}
			return
		case <-ping.answered:
			ping.rest()
		case <-ping.timer.C:
			if !ping.due(ctx, conn, talks) {
				p.update(func(s *state) {
					s.doom(w, noAnswer("no answer to ping within %s", p.o.PingTimeout))
				})
				return
			}
		}
	}
}

// askToExit lets the worker end by itself.
func (p *Pool) askToExit(ctx context.Context, w *worker, conn *jsonrpc.Conn, talks *sync.WaitGroup) {
	// Its answer does not matter: the worker exits or is killed.
	talks.Go(func() { _ = conn.Call(ctx, protocol.MethodShutdown, struct{}{}, nil) })
	select {
	case <-ctx.Done():
	case <-w.proc.Done():
	case <-time.After(exitGrace):
	}
}

// streamEnded deals with a worker that can no longer be talked to. Mostly it is
// dying, and how is about to be known.
func (p *Pool) streamEnded(ctx context.Context, w *worker, why error) {
	p.update(func(s *state) { s.drain(w) })
	grace := exitGrace
	f := &fate{code: protocol.CodeWorkerProtocolError, message: "worker closed its stream", suspected: true}
	if errors.Is(why, jsonrpc.ErrProtocol) {
		grace = suspectGrace
		f = violation(why)
		f.suspected = true
	}
	stuck := time.NewTimer(grace)
	defer stuck.Stop()
	select {
	case <-w.proc.Done():
		if grace == exitGrace {
			return // It ended, as processes do; Exit tells how.
		}
	case <-ctx.Done():
	case <-stuck.C:
		f.suspected = false // The signal that ends it now is ours.
	}
	p.update(func(s *state) { s.doom(w, f) })
}

// pinger asks a worker whether it is there.
//
// Its answer cannot overtake the events before it. So a worker is not taken for
// hung while a sink of ours holds up its stream, or as long as anything comes.
type pinger struct {
	w        *worker
	interval time.Duration // 0 = never
	timeout  time.Duration
	timer    *time.Timer
	answered chan struct{}
	waiting  bool
	heard    uint64 // of the worker, when the ping was sent or last forgiven
}

func (p *Pool) newPinger(w *worker) *pinger {
	pi := &pinger{
		w:        w,
		interval: p.o.PingInterval,
		timeout:  p.o.PingTimeout,
		timer:    time.NewTimer(time.Hour),
		answered: make(chan struct{}, 1),
	}
	pi.timer.Stop()
	if pi.interval > 0 {
		// Workers that were started together are not to be asked together.
		pi.timer.Reset(max(1, time.Duration(p.o.Rand()*float64(pi.interval))))
	}
	return pi
}

// rest waits for the next ping.
func (pi *pinger) rest() {
	pi.waiting = false
	pi.timer.Reset(pi.interval)
}

// due sends the next ping, or judges the one that is out. It reports false if
// the worker hangs.
func (pi *pinger) due(ctx context.Context, conn *jsonrpc.Conn, talks *sync.WaitGroup) bool {
	heard := pi.w.heard.Load()
	if pi.waiting && heard == pi.heard && !pi.w.handling.Load() {
		return false
	}
	if !pi.waiting {
		talks.Go(func() {
			// An error is an answer, too; if it is the end of the connection, that
			// is seen elsewhere.
			_ = conn.Call(ctx, protocol.MethodPing, struct{}{}, nil)
			pi.answered <- struct{}{}
		})
	}
	pi.waiting, pi.heard = true, heard
	pi.timer.Reset(pi.timeout)
	return true
}
