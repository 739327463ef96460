package httpapi

import (
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"carrel/protocol"
)

// maxKeyBytes bounds what is hashed for who has not signed in yet.
const maxKeyBytes = 512

// SignInRefusal is why a request was refused before anything was looked at.
type SignInRefusal string

// The reasons.
const (
	NoKey            SignInRefusal = "no_key"
	WrongKey         SignInRefusal = "wrong_key"
	TooManyWrongKeys SignInRefusal = "too_many_wrong_keys" // from one address
	RateLimited      SignInRefusal = "rate_limited"
)

// SignInRefusals lists them all.
func SignInRefusals() []SignInRefusal {
	return []SignInRefusal{NoKey, WrongKey, TooManyWrongKeys, RateLimited}
}

// refusedFor tells of a refusal.
func (a *api) refusedFor(reason SignInRefusal) {
	if a.opts.SignInRefused != nil {
		a.opts.SignInRefused(reason)
	}
}

// signIn tells who sends a request. Errors: CodeUnauthorized, the same without a
// key as with a wrong one; CodeRateLimited after too many wrong keys from one
// address, whatever key comes then, or after too many requests of one caller.
func (a *api) signIn(r *http.Request) (Caller, error) {
	caller := Caller{Name: LocalCaller, Admin: true}
	if a.opts.Identify != nil {
		var err error
		if caller, err = a.identify(r); err != nil {
			return Caller{}, err
		}
	}
	if a.requests != nil {
		if wait := a.requests.take(caller.Name); wait > 0 {
			a.refusedFor(RateLimited)
			return Caller{}, tooMany(wait, "too many requests of this caller: at most %s (CARREL_RATE_LIMIT)", a.opts.RateLimit)
		}
	}
	return caller, nil
}

func (a *api) identify(r *http.Request) (Caller, error) {
	unknown := protocol.Errorf(protocol.CodeUnauthorized, "this needs an API key that is in force, as Authorization: Bearer KEY")
	key, ok := bearer(r.Header)
	if !ok {
		a.refusedFor(NoKey)
		return Caller{}, unknown // no guess
	}
	address := origin(r.RemoteAddr)
	caller, ok := a.opts.Identify(key)
	if ok {
		if wait := a.attempts.right(address, caller.Name); wait > 0 {
			a.refusedFor(TooManyWrongKeys)
			return Caller{}, tooManyGuesses(wait)
		}
		return caller, nil
	}
	wait, isNew := a.attempts.wrong(address, key)
	if wait > 0 {
		a.refusedFor(TooManyWrongKeys)
		return Caller{}, tooManyGuesses(wait)
	}
	a.refusedFor(WrongKey)
	if isNew { // as many as the limit lets through, and no more
		a.log.LogAttrs(r.Context(), slog.LevelWarn, "somebody tried a wrong API key", slog.String("remote", r.RemoteAddr))
	}
	return Caller{}, unknown
}

// bearer reads the key of a request: one header, one key (RFC 6750, section 2.1).
func bearer(h http.Header) (string, bool) {
	given := h.Values("Authorization")
	if len(given) != 1 {
		return "", false
	}
	scheme, key, _ := strings.Cut(given[0], " ")
	if !strings.EqualFold(scheme, "Bearer") || key == "" || len(key) > maxKeyBytes {
		return "", false
	}
	return key, true
}

func tooManyGuesses(wait time.Duration) error {
	return tooMany(wait, "too many wrong API keys from this address")
}

func tooMany(wait time.Duration, format string, args ...any) error {
	return &protocol.Error{Code: protocol.CodeRateLimited, Message: fmt.Sprintf(format, args...), RetryAfter: wait}
}
