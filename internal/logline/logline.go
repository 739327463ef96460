// Package logline puts on each line of the log whom it is about: run, user, session and
// worker, as far as they are known by then.
//
// A context carries a [Subject], which whoever learns of one of them fills in: a request
// that is answered knows its user, then the run that it has started, then that run's
// worker. A line that is logged with the context has what is known at that moment. A user
// is shown as [User] only: the log may be kept where users' ids must not be.
package logline

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"sync"
)

// The attributes.
const (
	KeyRun     = "run" // of a run, or of a command (exec_…)
	KeyUser    = "user"
	KeySession = "session"
	KeyWorker  = "worker" // its number in this daemon
	KeyTrace   = "trace_id"
)

// maxBytes bounds what is kept of a run's or session's id: a caller may have written it.
const maxBytes = 128

// User is a user's id as the log shows it: the first 48 bits of its SHA-256 in hex. The
// hash in the name of the user's directory begins with the same.
func User(id string) string {
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:6])
}

// Subject is whom lines are about. It is safe for concurrent use.
type Subject struct {
	mu                        sync.Mutex
	run, user, session, trace string
	worker                    uint64
}

// Fields are what to fill in; an empty one leaves what is there.
type Fields struct {
	Run     string
	UserID  string // in clear: it is hashed here
	Session string
	Worker  uint64
	Trace   string
}

type key struct{}

// With gives a context with a subject of its own.
func With(ctx context.Context, f Fields) context.Context {
	s := &Subject{}
	s.fill(f)
	return context.WithValue(ctx, key{}, s)
}

// Carry gives ctx the subject of from, so that both learn what either does; without one
// it is a new one.
func Carry(ctx, from context.Context) context.Context {
	s := of(from)
	if s == nil {
		s = &Subject{}
	}
	return context.WithValue(ctx, key{}, s)
}

// Fill adds to what is known of the context's subject; without one it does nothing.
func Fill(ctx context.Context, f Fields) {
	if s := of(ctx); s != nil {
		s.fill(f)
	}
}

func of(ctx context.Context) *Subject {
	s, _ := ctx.Value(key{}).(*Subject)
	return s
}

func (s *Subject) fill(f Fields) {
	s.mu.Lock()
	defer s.mu.Unlock()
	set := func(to *string, value string) {
		if value != "" {
			*to = value[:min(len(value), maxBytes)]
		}
	}
	set(&s.run, f.Run)
	set(&s.session, f.Session)
	set(&s.trace, f.Trace)
	if f.UserID != "" {
		s.user = User(f.UserID)
	}
	if f.Worker != 0 {
		s.worker = f.Worker
	}
}

// attrs are what is known, in the order in which lines show it.
func (s *Subject) attrs() []slog.Attr {
	s.mu.Lock()
	defer s.mu.Unlock()
	attrs := make([]slog.Attr, 0, 5)
	for _, a := range [...]slog.Attr{
		slog.String(KeyRun, s.run), slog.String(KeyUser, s.user), slog.String(KeySession, s.session), slog.String(KeyTrace, s.trace),
	} {
		if a.Value.String() != "" {
			attrs = append(attrs, a)
		}
	}
	if s.worker != 0 {
		attrs = append(attrs, slog.Uint64(KeyWorker, s.worker))
	}
	return attrs
}

// handler adds the context's subject to each line.
type handler struct{ slog.Handler }

var _ slog.Handler = handler{}

// New makes a logger whose lines bear their contexts' subjects.
func New(to *slog.Logger) *slog.Logger {
	if _, ok := to.Handler().(handler); ok {
		return to
	}
	return slog.New(handler{to.Handler()})
}

// Handle implements [slog.Handler].
func (h handler) Handle(ctx context.Context, r slog.Record) error {
	if s := of(ctx); s != nil {
		r = r.Clone()
		r.AddAttrs(s.attrs()...)
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs implements [slog.Handler].
func (h handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return handler{h.Handler.WithAttrs(attrs)}
}

// WithGroup implements [slog.Handler].
func (h handler) WithGroup(name string) slog.Handler { return handler{h.Handler.WithGroup(name)} }
