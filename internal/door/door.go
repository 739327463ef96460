// Package door is the jailed half's side of the one way out of a sandbox: HTTP
// over the line to the broker that a worker was given when it was bound.
//
//	worker: Door.RoundTrip ── HTTP/2 without TLS, over a socketpair ──► broker: adds the key ──► model API
//
// The line is a descriptor and never a path: nothing that a tool could connect to.
// It is one connection for the worker's whole life, and all requests share it.
package door

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync"
)

const (
	// BaseURL is what requests through the door are addressed to. The host's name
	// means nothing and reaches no resolver; the broker looks at method and path
	// alone. (".invalid": RFC 6761 §6.4.)
	BaseURL = "http://" + host
	// RunHeader names the run that a request belongs to, which pays for it. The
	// broker answers only those that name a run which is going in this sandbox.
	RunHeader = "Carrel-Run"
	// CodeHeader is on an answer of the broker's own that ends a run, and holds the
	// code it ends with: "budget_exceeded".
	CodeHeader = "Carrel-Code"

	host = "broker.invalid"
)

// Door sends requests over the line. It implements [http.RoundTripper] and is safe
// for concurrent use. Where the broker has as many requests of this worker under
// way as it takes, further ones wait until their contexts end.
type Door struct{ conn *http.ClientConn }

var _ http.RoundTripper = (*Door)(nil)

// Open makes a door of the line, which it takes over, also on error. A broker that
// goes away ends the requests under way with an error and all later ones, too; the
// line is not made anew.
//
// The door has one goroutine, which reads the line and ends with it or with Close.
func Open(ctx context.Context, line *os.File) (*Door, error) {
	if line == nil {
		return nil, errors.New("open door: this worker was given no line to a broker")
	}
	// A duplicate, close-on-exec and non-blocking, which the runtime's poller reads.
	conn, err := net.FileConn(line)
	_ = line.Close()
	if err != nil {
		return nil, fmt.Errorf("open door: %w", err)
	}
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{
		// Proxy stays nil: no variable of the environment changes where this goes.
		DialContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil },
		Protocols:   &protocols,
		// The broker asks for plain answers, since it counts their tokens.
		DisableCompression: true,
	}
	client, err := transport.NewClientConn(ctx, "http", net.JoinHostPort(host, "80"))
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("open door: %w", err)
	}
	return &Door{conn: client}, nil
}

// Late is a door that its first request opens. It implements [http.RoundTripper] and
// is safe for concurrent use.
type Late struct{ open func() (*Door, error) }

// OpenLate makes one of the line, as [Open] would with ctx.
func OpenLate(ctx context.Context, line *os.File) *Late {
	return &Late{open: sync.OnceValues(func() (*Door, error) { return Open(ctx, line) })}
}

// RoundTrip implements [http.RoundTripper].
func (l *Late) RoundTrip(r *http.Request) (*http.Response, error) {
	d, err := l.open()
	if err != nil {
		return nil, err
	}
	return d.RoundTrip(r)
}

// RoundTrip implements [http.RoundTripper].
func (d *Door) RoundTrip(r *http.Request) (*http.Response, error) { return d.conn.RoundTrip(r) }

// Close ends the line, and the requests under way with it.
func (d *Door) Close() error { return d.conn.Close() }
