package audit

import (
	"time"

	"golang.org/x/time/rate"
)

// newLimiter bounds the lines of one action that one user's worker may cause: so many a
// second, and so many at once. A worker that floods the log could otherwise push
// everybody's earlier lines out of the files that are kept. nil: the action is the
// host's own or a caller's, and not bounded. Each has its own, so that much of one hides
// none of another.
func newLimiter(a Action) *rate.Limiter {
	switch a { //nolint:exhaustive // the rest has none
	case Denied:
		return rate.NewLimiter(0.2, 30)
	case ToolDecided:
		return rate.NewLimiter(2, 120)
	case ApprovalAsked, ApprovalEnded:
		return rate.NewLimiter(0.5, 64)
	}
	return nil
}

type rateKey struct {
	userID string
	action Action
}

type bucket struct {
	*rate.Limiter

	leftOut int64
}

// rates are those of all users who have used any of theirs.
type rates map[rateKey]*bucket

// take reports whether a line may be written, and how many before it were not.
func (r rates) take(e Event, now time.Time) (leftOut int64, ok bool) {
	key := rateKey{e.UserID, e.Action}
	b := r[key]
	if b == nil {
		limiter := newLimiter(e.Action)
		if limiter == nil {
			return 0, true
		}
		b = &bucket{Limiter: limiter}
		r[key] = b
	}
	if !b.AllowN(now, 1) {
		b.leftOut++
		return 0, false
	}
	leftOut, b.leftOut = b.leftOut, 0
	return leftOut, true
}

// settle gives the lines that tell what of a user's was left out ("" = of everybody's),
// and forgets all users who have used nothing for long enough.
func (r rates) settle(userID string, now time.Time) (told []Event) {
	for key, b := range r {
		if b.leftOut > 0 && (userID == "" || userID == key.userID) {
			told = append(told, Event{Action: LeftOut, UserID: key.userID, Of: key.action, Lines: b.leftOut})
			b.leftOut = 0
		}
		if b.TokensAt(now) >= float64(b.Burst()) && b.leftOut == 0 {
			delete(r, key)
		}
	}
	return told
}
