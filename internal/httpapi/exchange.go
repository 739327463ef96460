package httpapi

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"carrel/protocol"
)

// exchange is one request under way: it watches what is answered, for the log.
type exchange struct {
	http.ResponseWriter

	ctx       context.Context //nolint:containedctx // of the request
	requestID string
	began     time.Time
	pattern   string // of the route; empty before there is one
	caller    string // its name; empty before it has signed in
	status    int    // 0 before the answer has begun
	sentBytes int64
	body      countedBody
	err       error // what cut the request short
}

// countedBody counts what is read of a request's body.
type countedBody struct {
	io.ReadCloser

	bytes atomic.Int64 // a handler may read in a goroutine of its own
}

// Read implements io.Reader.
func (c *countedBody) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.bytes.Add(int64(n))
	return n, err
}

// Answered is a request that has been answered.
type Answered struct {
	Method  string // one of the route table's, or HEAD, or anything if there is no route
	Pattern string // of its route; "" = there is none
	Status  int
	// Bytes of the two bodies.
	ReceivedBytes, SentBytes int64
	Took                     time.Duration
}

// Unwrap lets http.ResponseController reach the server's own writer.
func (x *exchange) Unwrap() http.ResponseWriter { return x.ResponseWriter }

// WriteHeader implements http.ResponseWriter.
func (x *exchange) WriteHeader(status int) {
	if x.status == 0 && status >= http.StatusOK {
		x.status = status
	}
	x.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (x *exchange) Write(b []byte) (int, error) {
	if x.status == 0 {
		x.status = http.StatusOK
	}
	n, err := x.ResponseWriter.Write(b)
	x.sentBytes += int64(n)
	return n, err
}

// finish is deferred around the handling of a request: it recovers a panic and
// logs the request. A panic in an answer that has begun must not look like its
// proper end, so the connection is cut.
func (a *api) finish(x *exchange, r *http.Request) {
	p := recover()
	begun := x.status != 0
	switch p {
	case nil:
	case http.ErrAbortHandler:
		x.err = http.ErrAbortHandler
	default:
		x.err = fmt.Errorf("panic: %v", p)
		a.log.LogAttrs(r.Context(), slog.LevelError, "handler panicked",
			slog.String("request_id", x.requestID),
			slog.Any("panic", p),
			slog.String("stack", string(debug.Stack())))
		if !begun {
			a.writeProblem(x, x.err)
		}
	}
	a.logAccess(x, r)
	if a.opts.Answered != nil {
		a.opts.Answered(x.ctx, Answered{ //nolint:contextcheck // r's, with what Entered put there
			Method: r.Method, Pattern: x.pattern, Status: x.status,
			ReceivedBytes: x.body.bytes.Load(), SentBytes: x.sentBytes, Took: time.Since(x.began),
		})
	}
	if p != nil && (begun || x.status == 0) {
		panic(http.ErrAbortHandler)
	}
}

// short is what the log shows of a text that nobody has signed for; it is ASCII.
func short(text string) string { return text[:min(len(text), 256)] }

// logAccess writes the request's one line: at debug what only reads, at info
// what changes something, above that what the daemon or a worker got wrong. It
// holds no bodies, no queries and no keys.
func (a *api) logAccess(x *exchange, r *http.Request) {
	level := slog.LevelDebug
	switch {
	case x.status == protocol.CodeInternal.HTTPStatus():
		level = slog.LevelError
	case x.status > protocol.CodeInternal.HTTPStatus():
		level = slog.LevelWarn
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		level = slog.LevelInfo
	}
	attrs := []slog.Attr{
		slog.String("request_id", x.requestID),
		slog.String("method", short(r.Method)),
		slog.String("route", x.pattern),
		slog.String("caller", x.caller),
		slog.Int("status", x.status),
		slog.Int64("sent_bytes", x.sentBytes),
		slog.Duration("took", time.Since(x.began)),
		slog.String("remote", r.RemoteAddr),
	}
	// One with ids in it is told by its route, and whom it is about by the context. One
	// without a route may be a misspelt one of a user's.
	if !strings.Contains(x.pattern, "{") && !strings.Contains(strings.ToLower(r.URL.Path), "user") {
		attrs = append(attrs, slog.String("path", short(r.URL.EscapedPath())))
	}
	if x.err != nil {
		attrs = append(attrs, slog.Any("error", x.err))
	}
	a.log.LogAttrs(r.Context(), level, "request", attrs...)
}
