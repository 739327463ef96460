package httpapi

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// pipeListener serves connections without a buffer between the two ends: the
// server's write blocks until the client reads. In a synctest bubble they use
// its clock.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error { close(l.closed); return nil }

func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

func (l *pipeListener) dial(context.Context, string, string) (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case l.conns <- server:
		return client, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// servePipes serves h over pipes until stop is called, which waits.
func servePipes(t *testing.T, h http.Handler) (l *pipeListener, stop func()) {
	t.Helper()
	l = &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
	server := NewServer(h, slog.New(slog.DiscardHandler))
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	return l, func() {
		_ = server.Close()
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
		synctest.Wait()
	}
}

// pipeClient is one raw connection.
type pipeClient struct {
	net.Conn

	r *bufio.Reader
}

// connect opens a connection and sends a request head, without reading.
func connect(t *testing.T, l *pipeListener, head string) *pipeClient {
	t.Helper()
	conn, err := l.dial(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprintf(conn, "%s\r\nHost: x\r\n\r\n", head); err != nil {
		t.Fatal(err)
	}
	return &pipeClient{conn, bufio.NewReaderSize(conn, 16)}
}

// pass lets the bubble's clock run on.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}
