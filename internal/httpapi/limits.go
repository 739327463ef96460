package httpapi

import (
	"fmt"
	"hash/maphash"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Rate is a number of requests in a time, which may come all at once. The zero
// value is no limit.
type Rate struct {
	Requests int
	Per      time.Duration
}

func (r Rate) String() string { return fmt.Sprintf("%d in %s", r.Requests, r.Per) }

// The bounds of what is remembered of callers and addresses.
const (
	maxCallers   = 1 << 16
	maxAddresses = 1 << 12
	// maxAcquainted is how many pairs of address and key are known to be good.
	maxAcquainted = 1 << 12
	// maxTried is how many wrong keys of an address are known again.
	maxTried = 8
)

// guesses is what one address may try: ten wrong keys, then ten a minute.
var guesses = Rate{Requests: 10, Per: time.Minute}

// buckets is a token bucket for each of a bounded number of names. All names for
// which there is no room share one.
type buckets struct {
	limit rate.Limit
	burst int
	most  int

	mu    sync.Mutex // guards all below, and what is in the buckets
	held  map[string]*bucket
	rest  *bucket
	swept time.Time
}

type bucket struct {
	*rate.Limiter

	tried []uint64 // digests of the last wrong keys; see attempts
}

func newBuckets(r Rate, most int) *buckets {
	b := &buckets{
		limit: rate.Limit(float64(r.Requests) / r.Per.Seconds()),
		burst: r.Requests,
		most:  most,
		held:  make(map[string]*bucket),
	}
	b.rest = b.fresh()
	return b
}

func (b *buckets) fresh() *bucket { return &bucket{Limiter: rate.NewLimiter(b.limit, b.burst)} }

// take takes a token of name's, or tells how long until there is one.
func (b *buckets) take(name string) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.takeFrom(b.find(name))
}

// takeFrom is take. The caller holds b.mu.
func (b *buckets) takeFrom(of *bucket) time.Duration {
	now := time.Now()
	if of.AllowN(now, 1) {
		return 0
	}
	return b.wait(of, now)
}

// wait is how long until a bucket has a token; 0 if it has one.
func (b *buckets) wait(of *bucket, now time.Time) time.Duration {
	missing := 1 - of.TokensAt(now)
	if missing <= 0 {
		return 0
	}
	return max(time.Millisecond, time.Duration(missing/float64(b.limit)*float64(time.Second)))
}

// find returns name's bucket. Where there is no room for a new one, those that are
// full again go: they are as good as new ones. That is looked for once a second at
// most, so that nobody can keep the daemon busy with it. The caller holds b.mu.
func (b *buckets) find(name string) *bucket {
	if of := b.held[name]; of != nil {
		return of
	}
	now := time.Now()
	if len(b.held) >= b.most && now.Sub(b.swept) >= time.Second {
		b.swept = now
		maps.DeleteFunc(b.held, func(_ string, of *bucket) bool { return of.TokensAt(now) >= float64(b.burst) })
	}
	if len(b.held) >= b.most {
		return b.rest
	}
	of := b.fresh()
	b.held[name] = of
	return of
}

// peek returns the bucket that name has or would share; nil if it would get one of
// its own, which is full. The caller holds b.mu.
func (b *buckets) peek(name string) *bucket {
	if of := b.held[name]; of != nil || len(b.held) < b.most {
		return of
	}
	return b.rest
}

// attempts makes guessing slow: an address that has tried too many wrong keys has
// to wait, and until then no answer tells a right key from a wrong one.
//
// Two things keep a guesser from locking out those who share its address, as all
// do who come through one proxy:
//
//   - The same wrong key again is no guess: its answer tells nothing new. So a
//     program that goes on with a key of yesterday costs nobody anything.
//   - A key that has signed in from an address may go on from there. This gives a
//     guesser that shares the address a faster way to just that key, and to it alone.
type attempts struct {
	seed    maphash.Seed
	buckets *buckets

	// acquainted is guarded by buckets.mu.
	acquainted map[acquaintance]struct{}
}

type acquaintance struct{ address, caller string }

func newAttempts() *attempts {
	return &attempts{
		seed:       maphash.MakeSeed(),
		buckets:    newBuckets(guesses, maxAddresses),
		acquainted: make(map[acquaintance]struct{}),
	}
}

// right notes that an address has presented a caller's key, and tells how long it
// has to wait all the same.
func (a *attempts) right(address, caller string) time.Duration {
	a.buckets.mu.Lock()
	defer a.buckets.mu.Unlock()
	pair := acquaintance{address, caller}
	if _, ok := a.acquainted[pair]; ok {
		return 0
	}
	if of := a.buckets.peek(address); of != nil {
		if wait := a.buckets.wait(of, time.Now()); wait > 0 {
			return wait
		}
	}
	if len(a.acquainted) >= maxAcquainted {
		for one := range a.acquainted { // any
			delete(a.acquainted, one)
			break
		}
	}
	a.acquainted[pair] = struct{}{}
	return 0
}

// wrong notes that an address has presented a wrong key, and tells how long it has
// to wait before the next guess counts, and whether this was a new one.
func (a *attempts) wrong(address, key string) (wait time.Duration, isNew bool) {
	digest := maphash.String(a.seed, key)
	a.buckets.mu.Lock()
	defer a.buckets.mu.Unlock()
	of := a.buckets.find(address)
	if slices.Contains(of.tried, digest) {
		return 0, false
	}
	if wait := a.buckets.takeFrom(of); wait > 0 {
		return wait, false
	}
	if len(of.tried) == maxTried {
		of.tried = slices.Delete(of.tried, 0, 1)
	}
	of.tried = append(of.tried, digest)
	return 0, true
}

// origin is where a request comes from, as far as limits go: an IPv4 address, or
// the /64 of an IPv6 one, of which a host has all (RFC 6177). What is no address is
// one origin.
func origin(remote string) string {
	addrPort, err := netip.ParseAddrPort(remote)
	if err != nil {
		return ""
	}
	addr := addrPort.Addr().Unmap().WithZone("")
	if addr.Is4() {
		return addr.String()
	}
	prefix, err := addr.Prefix(64)
	if err != nil {
		return ""
	}
	return prefix.String()
}
