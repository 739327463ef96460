package pool

import (
	"container/list"
	"time"

	"carrel/protocol"
)

// user is one user with anything here: a worker, waiting runs or leases.
type user struct {
	id string
	// worker is bound to the user or on its way there; old is one that takes no
	// more runs but whose tree is not gone. Never both are set: two workers of
	// one user must not have the directory at the same time.
	worker, old *worker
	leases      int       // lent and not released, also of dead workers
	waiters     list.List // of *waiter, first come in front
	ringed      *list.Element
	ticket      uint64      // its place in the ring; lower is earlier
	turned      uint64      // the ticket it gave up for its last turn
	promised    bool        // a worker is ending whose room is for this user
	counted     int         // of its waiters, in state.queued
	lastFailure *DeathError // why the last start for it failed, while it waits
}

// waiter is one Acquire that could not be served at once.
type waiter struct {
	user     *user
	listed   *list.Element // in user.waiters; nil once answered
	since    time.Time
	overdue  bool          // its queue time is over, but a start for it is under way
	answered chan struct{} // closed once lease or err is set
	lease    *Lease
	err      error
	// place is the last one told through moved, which is nil if nobody asks.
	place int
	moved chan int // holds the newest place only
}

// userOf finds or makes the record of a user.
func (s *state) userOf(id string) *user {
	u := s.users[id]
	if u == nil {
		u = &user{id: id}
		s.users[id] = u
	}
	return u
}

// fill is how many runs of its user a new worker takes at once.
func (o *Options) fill() int {
	if o.MaxRequests > 0 {
		return min(o.MaxRunsPerUser, o.MaxRequests)
	}
	return o.MaxRunsPerUser
}

// isStarting reports whether u's worker is on its way.
func (u *user) isStarting() bool {
	return u.worker != nil && (u.worker.state == starting || u.worker.state == binding)
}

// covered counts the waiters of u that a worker on its way will serve, or one
// for which room is coming. They do not count as queued: they wait for a
// process, not for another run's end.
func (s *state) covered(u *user) int {
	if u.isStarting() || u.promised {
		return min(u.waiters.Len(), s.o.fill())
	}
	return 0
}

// touch brings what is counted about u up to date, and forgets u when there is
// nothing left of it. To be called after each change of u.
func (s *state) touch(u *user) {
	n := u.waiters.Len()
	queued := n - s.covered(u)
	s.queued += queued - u.counted
	u.counted = queued
	s.moved = true
	switch {
	case n > 0 && u.ringed == nil:
		s.tickets++
		u.ticket = s.tickets
		u.ringed = s.ring.PushBack(u)
	case n == 0 && u.ringed != nil:
		s.ring.Remove(u.ringed)
		u.ringed, u.turned = nil, 0
	}
	if n == 0 && u.worker == nil && u.old == nil && u.leases == 0 {
		delete(s.users, u.id)
	}
}

// toEnd moves u, which has had its turn, to the end of the ring.
func (s *state) toEnd(u *user) {
	s.moved = true
	u.turned = u.ticket
	s.tickets++
	u.ticket = s.tickets
	if u.ringed != nil {
		s.ring.MoveToBack(u.ringed)
	}
}

// giveTurnBack puts u where it stood before a turn that came to nothing.
func (s *state) giveTurnBack(u *user) {
	if u.ringed == nil || u.turned == 0 {
		return
	}
	s.moved = true
	u.ticket, u.turned = u.turned, 0
	for e := s.ring.Front(); e != nil; e = e.Next() {
		if other := e.Value.(*user); other != u && other.ticket > u.ticket {
			s.ring.MoveBefore(u.ringed, e)
			return
		}
	}
	s.ring.MoveToBack(u.ringed)
}

// wait makes a waiter of a run of u.
func (s *state) wait(u *user, wantsPlace bool) *waiter {
	wt := &waiter{user: u, since: s.now, answered: make(chan struct{})}
	if wantsPlace {
		wt.moved = make(chan int, 1)
		s.watched++
	}
	wt.listed = u.waiters.PushBack(wt)
	s.touch(u)
	return wt
}

// unlist takes an answered waiter out of the queue.
func (s *state) unlist(wt *waiter) {
	wt.user.waiters.Remove(wt.listed)
	wt.listed = nil
	if wt.moved != nil {
		s.watched--
	}
	s.do(effect{kind: answer, wt: wt})
}

// refuse answers a waiter with an error, unless it has its answer.
func (s *state) refuse(wt *waiter, err error) {
	if wt.listed == nil {
		return
	}
	wt.err = err
	s.unlist(wt)
	s.touch(wt.user)
}

// refuseAll answers all waiters of u.
func (s *state) refuseAll(u *user, err error) {
	for e := u.waiters.Front(); e != nil; e = u.waiters.Front() {
		wt := e.Value.(*waiter)
		wt.err = err
		s.unlist(wt)
	}
	s.touch(u)
}

// expire is the end of a waiter's queue time. One that a start under way will
// serve goes on waiting: that start has a limit of its own.
func (s *state) expire(wt *waiter) {
	if wt.listed == nil {
		return
	}
	if wt.user.isStarting() {
		e := wt.user.waiters.Front()
		for range s.covered(wt.user) {
			if e == wt.listed {
				wt.overdue = true
				return
			}
			e = e.Next()
		}
	}
	s.refuse(wt, s.tooLate(wt))
}

// tooLate is what a waiter is told whose queue time is over.
func (s *state) tooLate(wt *waiter) error {
	if wt.user.lastFailure != nil {
		return wt.user.lastFailure
	}
	err := protocol.Errorf(protocol.CodeQueueTimeout,
		"no worker came free within %s (place %d of %d)", s.o.QueueTimeout, max(wt.place, 1), s.queued)
	err.RetryAfter = s.patience(s.queued)
	return err
}

// refuseOverdue answers those waiters of u that waited on only for a start,
// after that has come to nothing.
func (s *state) refuseOverdue(u *user) {
	var next *list.Element
	for e := u.waiters.Front(); e != nil; e = next {
		next = e.Next()
		if wt := e.Value.(*waiter); wt.overdue {
			s.refuse(wt, s.tooLate(wt))
		}
	}
}

// The bounds of an advised wait: below, a client would only come back too early
// again; above, the estimate is worth nothing.
const (
	minPatience = time.Second
	maxPatience = time.Minute
)

// patience estimates, in whole seconds, how long n waiting runs take to get
// their turn: each worker serves one after another, as long as leases were held
// lately.
func (s *state) patience(n int) time.Duration {
	rounds := 1 + n/s.o.MaxWorkers
	if s.hold > maxPatience/time.Duration(rounds) {
		return maxPatience
	}
	wait := (s.hold*time.Duration(rounds) + time.Second - 1).Truncate(time.Second)
	return min(max(wait, minPatience), maxPatience)
}

// tellPlaces numbers the queued runs in the order in which they would be served
// if each user got one run a turn, and tells those that watch their new place.
// It costs a step for each waiting run, and nothing where nobody watches.
func (s *state) tellPlaces() {
	if !s.moved || s.watched == 0 {
		return
	}
	s.moved = false
	next := make([]*list.Element, 0, s.ring.Len())
	for e := s.ring.Front(); e != nil; e = e.Next() {
		u := e.Value.(*user)
		first := u.waiters.Front()
		for range s.covered(u) {
			first = first.Next()
		}
		if first != nil {
			next = append(next, first)
		}
	}
	for place := 1; len(next) > 0; {
		left := next[:0]
		for _, e := range next {
			e.Value.(*waiter).tell(place)
			place++
			if e = e.Next(); e != nil {
				left = append(left, e)
			}
		}
		next = left
	}
}

// tell leaves a new place for the waiter's goroutine, over an older one that it
// has not read. Only updates send, so after making room the send cannot block.
func (wt *waiter) tell(place int) {
	if wt.moved == nil || wt.place == place {
		return
	}
	wt.place = place
	select {
	case <-wt.moved:
	default:
	}
	wt.moved <- place
}
