package httpapi

import (
	"context"
	"net/http"
	"net/url"

	"carrel/protocol"
)

// LocalCaller is the name of every caller where there is no sign-in: whoever
// reaches the listener is one caller.
const LocalCaller = "local"

// Caller is who sends a request. The zero value may do nothing.
type Caller struct {
	Name  string // of its key
	Admin bool   // acts for everyone
	User  string // whom alone it acts for, unless Admin
	// Revoked ends when the key is taken away: what the caller has under way then
	// ends too. nil: it never is.
	Revoked context.Context //nolint:containedctx // the key's own life, not this call's
}

// Rule says who may call a route, and where the user is found whom the call is
// about. An admin may call every route.
type Rule int

// The rules. The zero value is none of them, and lets nobody in.
const (
	_ Rule = iota
	// Open: anybody, without a key. It is for the probes of supervisors and load
	// balancers, which have none, and for what is the same on every machine; such a
	// route must tell nothing about users.
	Open
	// AdminOnly: nobody else, for it is about all users.
	AdminOnly
	// UserInPath: who acts for {user_id}.
	UserInPath
	// RunOwner: who acts for the user of the run {run_id}. To others there is no
	// such run, whether there is one or not.
	RunOwner
	// UserInBody: who acts for the body's user_id, which the handler reads and
	// asks Caller.actFor about before it does anything.
	UserInBody
	// UserInHeader: who acts for the user that the header names; a user key need name
	// none. It is for a body that the user's own browser may have written.
	UserInHeader
	// OwnRuns: everyone who has signed in; the handler selects what is theirs.
	OwnRuns
)

// permit holds a request to its route's rule.
func (a *api) permit(rule Rule, r *http.Request) error {
	caller := CallerOf(r.Context())
	switch rule {
	case Open, UserInBody, OwnRuns:
		return nil
	case AdminOnly:
		if !caller.Admin {
			return protocol.Errorf(protocol.CodeForbidden, "this is for an admin key: it is about all users")
		}
		return nil
	case UserInHeader:
		_, err := userInHeader(r)
		return err
	case UserInPath:
		return caller.actFor(r.PathValue("user_id"))
	case RunOwner:
		return a.permitRun(r.Context(), caller, r.PathValue("run_id"))
	default:
		return protocol.Errorf(protocol.CodeForbidden, "nobody may call this: the route has no rule")
	}
}

// userHeader names a user, percent-encoded as in a path: a header has no other letters
// than ASCII's.
const userHeader = "X-Carrel-User"

// userInHeader reads for whom a request is made, and holds the caller to it.
func userInHeader(r *http.Request) (string, error) {
	caller := CallerOf(r.Context())
	given := r.Header.Values(userHeader)
	switch {
	case len(given) > 1:
		return "", invalid("%s: given %d times", userHeader, len(given))
	case len(given) == 0 && caller.Admin:
		return "", invalid("%s: must name the user (only a user key may leave it out)", userHeader)
	case len(given) == 0:
		return caller.User, caller.actFor(caller.User)
	}
	user, err := url.PathUnescape(given[0])
	if err != nil {
		return "", invalid("%s: malformed percent-encoding", userHeader)
	}
	if err := caller.actFor(user); err != nil {
		return "", err
	}
	return user, protocol.CheckUserID(user)
}

// permitRun answers one who asks for another user's run as if there were none:
// 403 would tell that there is one.
func (a *api) permitRun(ctx context.Context, caller Caller, runID string) error {
	if caller.Admin {
		return nil
	}
	owner, err := a.service.Owner(ctx, runID)
	if err != nil && protocol.CodeOf(err) != protocol.CodeNotFound {
		return err
	}
	if err != nil || caller.actFor(owner) != nil {
		return protocol.Errorf(protocol.CodeNotFound, "the user has no such run")
	}
	return nil
}

// actFor reports why the caller may not act for a user; nil if it may. The answer
// does not hang on whether there is such a user.
func (c Caller) actFor(user string) error {
	if c.Admin || c.User != "" && c.User == user {
		return nil
	}
	return protocol.Errorf(protocol.CodeForbidden, "this key acts for another user")
}

// callerKey is where a request's context holds its Caller.
type callerKey struct{}

// CallerOf is who sent the request that a context belongs to; the zero Caller
// where the context belongs to none.
func CallerOf(ctx context.Context) Caller {
	c, _ := ctx.Value(callerKey{}).(Caller)
	return c
}

// attach gives the context of the caller's request. done must follow.
func (c Caller) attach(ctx context.Context) (_ context.Context, done func()) {
	ctx = context.WithValue(ctx, callerKey{}, c)
	if c.Revoked == nil {
		return ctx, func() {}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(c.Revoked, func() { cancel(context.Cause(c.Revoked)) })
	return ctx, func() {
		stop()
		cancel(nil)
	}
}
