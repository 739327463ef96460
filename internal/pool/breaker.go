package pool

import (
	"container/list"
	"time"

	"carrel/protocol"
)

const (
	// Starts that fail are tried again after a random part of 100 ms, 200 ms,
	// 400 ms … 10 s ("full jitter": AWS Architecture Blog, "Exponential Backoff
	// And Jitter", 2015).
	minBackoff = 100 * time.Millisecond
	maxBackoff = 10 * time.Second
	// healthyTime without a failure makes the next backoff a short one again.
	healthyTime = 30 * time.Second
	// breakAfter this many failures in a row nobody is made to wait for another
	// try: see gate.
	breakAfter = 5
	// maxBinds is how many users' breakers are remembered. Past it the one that
	// failed longest ago is forgotten, which costs a few tries at worst.
	maxBinds = 1024
)

// breaker spaces tries that fail, and after breakAfter failures in a row says so
// instead of letting anybody wait:
//
//	closed ──5 failures in a row──► open ──time of the next probe──► probing
//	  ▲                              ▲ failed                           │
//	  │                              └──────────────────────────────────┤
//	  └────────────────────────────────── succeeded ────────────────────┘
//
// Its zero value is closed.
type breaker struct {
	rand     func() float64
	failures int // in a row
	level    int // of the backoff
	// round numbers the failures. Tries that ran side by side and failed for one
	// reason carry the same round and count as one.
	round     uint64
	notBefore time.Time // of the next try
	healthy   time.Time // the first success since the last failure; zero = none
	probing   bool      // the one try that is allowed while open is under way
	last      *DeathError
}

// hold says why a try may not begin now; the zero value says it may.
type hold struct {
	until   time.Time // a try may begin then
	probing bool      // wait for the try under way
	err     error     // do not wait: *DeathError
}

// gate asks whether a try may begin.
func (b *breaker) gate(now time.Time) hold {
	open := b.failures >= breakAfter
	switch {
	case open && b.probing:
		return hold{probing: true}
	case !now.Before(b.notBefore):
		return hold{}
	case open:
		return hold{until: b.notBefore, err: b.last.again(b.failures, b.notBefore.Sub(now))}
	default:
		return hold{until: b.notBefore}
	}
}

// begin notes a try. Its result goes, with the round returned, to failed or
// dropped, or to succeeded.
func (b *breaker) begin() uint64 {
	b.probing = b.failures >= breakAfter
	return b.round
}

// dropped notes that the try of this round came to no result.
func (b *breaker) dropped(round uint64) {
	if round == b.round {
		b.probing = false
	}
}

func (b *breaker) succeeded(now time.Time) {
	b.failures, b.probing, b.notBefore = 0, false, time.Time{}
	if b.healthy.IsZero() {
		b.healthy = now
	}
}

func (b *breaker) failed(now time.Time, round uint64, why *DeathError) {
	if round != b.round {
		return
	}
	if !b.healthy.IsZero() && now.Sub(b.healthy) >= healthyTime {
		b.level = 0
	}
	most := min(minBackoff<<b.level, maxBackoff)
	wait := time.Duration(b.rand() * float64(most))
	if b.failures++; b.failures >= breakAfter {
		wait = max(wait, minBackoff) // Open is meant to last, however the dice fall.
	}
	if most < maxBackoff {
		b.level++
	}
	b.round++
	b.notBefore = now.Add(wait)
	b.healthy, b.probing, b.last = time.Time{}, false, why
}

// breakers keeps one breaker for each user whose last bind failed.
type breakers struct {
	rand   func() float64
	byUser map[string]*list.Element
	order  list.List // of *userBreaker, failed longest ago in front
}

type userBreaker struct {
	breaker

	userID string
}

func (b *breakers) gate(userID string, now time.Time) hold {
	if e := b.byUser[userID]; e != nil {
		return e.Value.(*userBreaker).gate(now)
	}
	return hold{}
}

func (b *breakers) failed(userID string, now time.Time, why *DeathError) {
	e := b.byUser[userID]
	if e == nil {
		e = b.order.PushBack(&userBreaker{breaker: breaker{rand: b.rand}, userID: userID})
		b.byUser[userID] = e
	}
	b.order.MoveToBack(e)
	one := e.Value.(*userBreaker)
	one.failed(now, one.round, why) // A user has one try at a time.
	if b.order.Len() > maxBinds {
		b.forget(b.order.Front().Value.(*userBreaker).userID)
	}
}

// forget ends the memory of a user's failures: its bind succeeded.
func (b *breakers) forget(userID string) {
	if e := b.byUser[userID]; e != nil {
		b.order.Remove(e)
		delete(b.byUser, userID)
	}
}

// again is e as the answer to one that was not even tried for.
func (e *DeathError) again(failures int, wait time.Duration) *DeathError {
	err := protocol.Errorf(e.Err.Code, "%d in a row, last: %s", failures, e.Err.Message)
	err.Err = e.Err
	err.RetryAfter = max(wait, 0)
	return &DeathError{Err: err, Cause: e.Cause}
}
