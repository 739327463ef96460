package audit

import "time"

// rate bounds the lines of one action that one user's worker may cause: so many at
// once, and then so many a second. A worker that floods the log could otherwise push
// everybody's earlier lines out of the files that are kept.
type rate struct {
	burst     float64
	perSecond float64
}

// rateOf tells what bounds an action; the others are the host's own or a caller's.
// Each has its own, so that much of one hides none of another.
func rateOf(a Action) (rate, bool) {
	switch a { //nolint:exhaustive // the rest has none
	case Denied:
		return rate{burst: 30, perSecond: 0.2}, true
	case ToolDecided:
		return rate{burst: 120, perSecond: 2}, true
	case ApprovalAsked, ApprovalEnded:
		return rate{burst: 64, perSecond: 0.5}, true
	}
	return rate{}, false
}

type rateKey struct {
	userID string
	action Action
}

type bucket struct {
	used    float64 // of the burst
	at      time.Time
	leftOut int64
}

// rates are those of all users who have used any of theirs.
type rates map[rateKey]*bucket

// take reports whether a line may be written, and how many before it were not.
func (r rates) take(e Event, now time.Time) (leftOut int64, ok bool) {
	limit, limited := rateOf(e.Action)
	if !limited {
		return 0, true
	}
	key := rateKey{e.UserID, e.Action}
	b := r[key]
	if b == nil {
		b = &bucket{at: now}
		r[key] = b
	}
	b.drain(limit, now)
	if b.used > limit.burst-1 {
		b.leftOut++
		return 0, false
	}
	b.used++
	leftOut, b.leftOut = b.leftOut, 0
	return leftOut, true
}

func (b *bucket) drain(limit rate, now time.Time) {
	b.used = max(0, b.used-now.Sub(b.at).Seconds()*limit.perSecond)
	b.at = now
}

// settle gives the lines that tell what of a user's was left out ("" = of everybody's),
// and forgets all users who have used nothing for long enough.
func (r rates) settle(userID string, now time.Time) (told []Event) {
	for key, b := range r {
		if b.leftOut > 0 && (userID == "" || userID == key.userID) {
			told = append(told, Event{Action: LeftOut, UserID: key.userID, Of: key.action, Lines: b.leftOut})
			b.leftOut = 0
		}
		limit, _ := rateOf(key.action)
		if b.drain(limit, now); b.used == 0 && b.leftOut == 0 {
			delete(r, key)
		}
	}
	return told
}
