package pool

import (
	"errors"

	"carrel/protocol"
)

// breakerOf returns the breaker of w's start. A warm worker's failure is not
// held against users: for them it was no try.
func (s *state) breakerOf(w *worker) *breaker {
	if w.spare {
		return &s.refills
	}
	return &s.starts
}

// startFailed counts a failed start and lets its user wait for the next try, as
// far as that makes sense. It reports false if the worker was not wanted any
// more, so that nothing failed.
func (s *state) startFailed(w *worker, step string, why *DeathError) bool {
	if w.state != starting && w.state != binding {
		return false
	}
	u := w.user
	if step == stepStart {
		s.breakerOf(w).failed(s.now, w.attempt, why)
	} else {
		s.binds.failed(u.id, s.now, why)
	}
	s.drain(w)
	if u == nil {
		return true
	}
	u.lastFailure = why
	s.giveTurnBack(u)
	s.refuseOverdue(u)
	if why.Err.Code == protocol.CodeIsolationUnavailable {
		s.refuseAll(u, why) // Another try would find the same kernel.
	}
	return true
}

// foundNoRoom takes a start back that the host has no memory for.
func (s *state) foundNoRoom(w *worker) {
	s.noRoomUntil = s.now.Add(pressurePoll)
	u := w.user
	s.drain(w)
	if u != nil {
		s.giveTurnBack(u)
		s.refuseOverdue(u)
	}
}

// diedWarm counts the death of a worker that nobody had yet. One that dies soon
// after it was started would be started again and again.
func (s *state) diedWarm(w *worker, exit protocol.ExitCause) {
	if w.state != ready {
		return
	}
	if s.now.Sub(w.startedAt) < healthyTime {
		s.refills.failed(s.now, s.refills.round, startDeath(stepStart, errors.New("warm worker ended: "+describe(exit))))
	}
	s.drain(w)
}
