package pool

import (
	"container/list"
	"time"

	"carrel/protocol"
)

// pressurePoll is how long the pool starts nothing after the host has said that
// it has no room, unless a worker ends before.
const pressurePoll = 500 * time.Millisecond

// settle gives out what the update before it has made available.
func (s *state) settle() {
	s.wake = time.Time{}
	if s.running && !s.stopped {
		if !s.closing {
			s.serveRing()
			s.liftYields()
			s.refill()
		}
		s.retireExpired()
	}
	s.tellPlaces()
	if (s.closing || s.stopped) && s.live() == 0 && !s.gone {
		s.gone = true
		s.do(effect{kind: empty})
	}
	if !s.wake.IsZero() && (s.alarm.IsZero() || s.wake.Before(s.alarm)) {
		s.alarm = s.wake // What it is about to sleep until; do not signal twice.
		s.do(effect{kind: signal})
	}
}

// wakeAt makes the clock settle again at t at the latest.
func (s *state) wakeAt(t time.Time) {
	if s.wake.IsZero() || t.Before(s.wake) {
		s.wake = t
	}
}

// serveRing finds a worker, or room that is coming, for each user that waits
// without a worker, in the order of their turns. Its cost grows with the users
// that wait, which the queue bounds, not with the workers.
func (s *state) serveRing() {
	coming := s.ending + s.unclaimed
	s.stranded, s.waiting = 0, 0
	var next *list.Element
	for e := s.ring.Front(); e != nil; e = next {
		next = e.Next()
		if u := e.Value.(*user); u.worker == nil {
			promised := s.serveUser(u, &coming)
			if promised != u.promised {
				u.promised = promised
				s.touch(u)
			}
		}
	}
}

// serveUser serves u, or counts why not. It reports whether a worker is ending
// whose room u will have.
func (s *state) serveUser(u *user, coming *int) bool {
	if hold := s.binds.gate(u.id, s.now); hold.err != nil {
		s.refuseAll(u, hold.err)
		return false
	} else if !hold.until.IsZero() {
		s.waiting++
		s.wakeAt(hold.until)
		return false
	}
	if front := s.ready.Front(); front != nil && u.old == nil {
		s.claimWarm(front.Value.(*worker), u)
		return false
	}
	hold := s.starts.gate(s.now)
	if hold.err != nil {
		s.refuseAll(u, hold.err)
		return false
	}
	s.waiting++
	switch {
	case u.old != nil && !u.old.ending:
		// Its own worker gives the room, once its last runs have ended.
	case hold.probing:
		// The start under way tells whether another makes sense.
	case !hold.until.IsZero():
		s.wakeAt(hold.until)
	case u.old == nil && s.hasRoom():
		s.waiting--
		s.newWorker(u)
	case *coming > 0:
		*coming--
		return true
	case s.idle.Len() > 0:
		s.drain(s.idle.Front().Value.(*worker))
		return true
	default:
		s.stranded++
	}
	return false
}

// hasRoom reports whether one more worker may live.
func (s *state) hasRoom() bool {
	if s.live() >= s.o.MaxWorkers {
		return false
	}
	if s.now.Before(s.noRoomUntil) {
		s.wakeAt(s.noRoomUntil)
		return false
	}
	return true
}

// refillPause is how long a user who has just got a worker has the processors for
// his first events before a start takes them, as long as a warm worker is left.
const refillPause = 50 * time.Millisecond

// refill starts one warm worker, if there are too few and nobody waits for a
// worker of his own: that is what low priority means here.
func (s *state) refill() {
	startingForUsers := s.count[starting] + s.count[binding] - s.unclaimed
	if s.ready.Len() >= s.o.Warm || s.unclaimed > 0 || s.waiting > 0 || startingForUsers > 0 || !s.hasRoom() {
		return
	}
	if pauseEnds := s.servedAt.Add(refillPause); s.ready.Len() > 0 && s.now.Before(pauseEnds) {
		s.wakeAt(pauseEnds)
		return
	}
	hold := s.refills.gate(s.now)
	switch {
	case hold.probing:
	case !hold.until.IsZero():
		s.wakeAt(hold.until)
	default:
		s.newWorker(nil)
	}
}

// mustYield reports whether one more busy worker has to make room.
func (s *state) mustYield() bool { return s.stranded > s.yielders.Len() }

// yield lets w take no more runs. Its user has had a turn and goes to the end.
func (s *state) yield(w *worker) {
	w.yields = s.yielders.PushBack(w)
	s.toEnd(w.user)
}

func (s *state) stopYielding(w *worker) {
	if w.yields != nil {
		s.yielders.Remove(w.yields)
		w.yields = nil
	}
}

// liftYields lets workers go on whose room is not needed any more.
func (s *state) liftYields() {
	for s.yielders.Len() > s.stranded {
		w := s.yielders.Back().Value.(*worker)
		s.stopYielding(w)
		s.fill(w)
		s.touch(w.user)
	}
}

// free reports whether w can take one more run now.
func (s *state) free(w *worker) bool {
	return w != nil && w.yields == nil && (w.state == idle || w.state == busy) && w.active < s.o.MaxRunsPerUser
}

// fill lends w to its user's waiting runs, as many as it takes.
func (s *state) fill(w *worker) {
	u := w.user
	if u.waiters.Len() > 0 && s.free(w) {
		s.toEnd(u)
	}
	for e := u.waiters.Front(); e != nil && s.free(w); e = u.waiters.Front() {
		wt := e.Value.(*waiter)
		wt.lease = s.lend(w)
		s.unlist(wt)
	}
}

// lend gives one run of w away.
func (s *state) lend(w *worker) *Lease {
	if w.state == idle {
		s.become(w, busy)
	}
	w.active++
	w.served++
	w.usedAt = s.now
	w.user.leases++
	if s.o.MaxRequests > 0 && w.served >= s.o.MaxRequests {
		s.drain(w)
	}
	return &Lease{w: w, since: s.now}
}

// acquire lends the user's worker at once, or returns a waiter.
func (s *state) acquire(userID string, wantsPlace bool) (*Lease, *waiter, error) {
	if s.closing || s.stopped {
		return nil, nil, errShuttingDown()
	}
	u := s.userOf(userID)
	if w := u.worker; u.waiters.Len() == 0 && s.free(w) {
		if w.state == idle || !s.mustYield() {
			return s.lend(w), nil, nil
		}
		s.yield(w)
	}
	wt := s.wait(u, wantsPlace)
	s.settle()
	if wt.listed != nil && u.counted > 0 && s.queued > s.o.QueueSize {
		s.refuse(s.excess(u), s.full())
	}
	return nil, wt, nil
}

// excess is the run that has to leave a queue which u's newest has made too long:
// the newest of the user who has the most waiting. So nobody can fill the queue
// against others. (fq_codel, RFC 8290 section 4.1, drops from the fattest flow.)
func (s *state) excess(u *user) *waiter {
	for e := s.ring.Front(); e != nil; e = e.Next() {
		if other := e.Value.(*user); other.counted > u.counted {
			u = other
		}
	}
	return u.waiters.Back().Value.(*waiter)
}

// full is what a run is told that finds the queue full.
func (s *state) full() error {
	if hold := s.starts.gate(s.now); !hold.until.IsZero() {
		return s.starts.last.again(s.starts.failures, hold.until.Sub(s.now))
	}
	err := protocol.Errorf(protocol.CodeQueueFull, "%d runs wait for a worker already", s.queued-1)
	err.RetryAfter = s.patience(s.queued)
	return err
}

// release takes a run back. It reports whether the worker is now idle.
func (s *state) release(l *Lease) bool {
	w, u := l.w, l.w.user
	w.active--
	u.leases--
	s.hold += (s.now.Sub(l.since) - s.hold) / 8
	defer s.touch(u)
	switch {
	case w.state == draining:
		if w.active == 0 {
			s.end(w, finish)
		}
		return false
	case w.state != busy:
		return false // It died under its runs.
	}
	w.usedAt = s.now
	if w.yields == nil && u.waiters.Len() > 0 && s.mustYield() {
		s.yield(w)
	}
	if w.yields == nil {
		s.fill(w)
	}
	switch {
	case w.active > 0 || w.state != busy:
		return false
	case w.yields != nil:
		s.drain(w)
		return false
	}
	s.become(w, idle)
	w.listed = s.idle.PushBack(w)
	return true
}

// retireExpired ends the workers that have been idle for too long.
func (s *state) retireExpired() {
	for e := s.idle.Front(); e != nil; e = s.idle.Front() {
		w := e.Value.(*worker)
		if end := w.usedAt.Add(s.o.IdleTimeout); s.now.Before(end) {
			s.wakeAt(end)
			return
		}
		s.drain(w)
	}
}
