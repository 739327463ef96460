package pool

import (
	"context"
	"time"
)

// keepTime settles the state when time alone makes a difference: an idle
// worker's time is over, a backoff has passed. It returns when ctx ends or the
// pool is empty for good.
//
// All times come from time.Now and are compared through their monotonic part,
// so a step of the wall clock moves none of them.
func (p *Pool) keepTime(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.empty:
			return
		case <-timer.C:
			// Settling sets the next alarm and signals it.
			p.update(func(s *state) { s.alarm = time.Time{} })
		case <-p.signal:
			if at := p.alarm(); !at.IsZero() {
				timer.Reset(time.Until(at))
			}
		}
	}
}

func (p *Pool) alarm() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.state.alarm
}
