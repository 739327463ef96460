package pool

import (
	"context"

	"carrel/protocol"
)

// Retire ends the user's worker and waits until its tree is gone. Waiting runs
// of the user are answered CodeCanceled. Going ones are canceled with that code
// and have the usual grace, during which the worker takes no others; when ctx
// ends before they have, the worker is killed, and Retire returns ctx's cause
// once it is gone. A user without a worker is no error.
func (p *Pool) Retire(ctx context.Context, userID string) error {
	canceled := protocol.Errorf(protocol.CodeCanceled, "the user's sandbox was retired")
	var w *worker
	p.update(func(s *state) {
		if u := s.users[userID]; u != nil {
			s.refuseAll(u, canceled)
		}
		if w = s.workerOf(userID); w != nil {
			s.drain(w)
			s.do(effect{kind: cancelRuns, w: w, err: canceled})
		}
	})
	if w == nil {
		return nil
	}
	select {
	case <-w.gone:
		return nil
	case <-ctx.Done():
	}
	p.update(func(s *state) { s.doom(w, &fate{code: canceled.Code, message: canceled.Message}) })
	if !waitAtMost(reaping, w.gone) {
		return protocol.Errorf(protocol.CodeInternal, "retire worker: it is still there %s after it was killed", reaping)
	}
	return context.Cause(ctx)
}
