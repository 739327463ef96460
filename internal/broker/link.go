package broker

import (
	"log/slog"
	"net"
	"net/http"
	"sync"
)

// Link is the broker's end of one worker's line.
type Link struct {
	broker  *Broker
	account *account
	server  *http.Server
	line    *oneConn
	served  chan struct{} // closed when the server accepts nothing more
	gone    chan struct{} // closed when the connection is

	runs map[string]*Meter // going, by id; guarded by account.mu

	closing sync.Once
}

func newLink(b *Broker, a *account, conn net.Conn) *Link {
	l := &Link{
		broker:  b,
		account: a,
		line:    &oneConn{conn: conn, next: make(chan net.Conn, 1), closed: make(chan struct{})},
		served:  make(chan struct{}),
		gone:    make(chan struct{}),
		runs:    make(map[string]*Meter),
	}
	l.line.next <- conn
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	// No time limits: a worker may be silent for as long as it lives, and whatever it
	// keeps waiting is its own.
	l.server = &http.Server{ //nolint:gosec // "Slowloris": it has one client, and that one alone waits
		Handler:        http.HandlerFunc(l.serve),
		Protocols:      &protocols,
		HTTP2:          &http.HTTP2Config{MaxConcurrentStreams: maxWaiting},
		MaxHeaderBytes: 64 << 10,
		// Or "OPTIONS *" would be answered before the list is looked at.
		DisableGeneralOptionsHandler: true,
		ConnState:                    l.watch,
		// What a hostile worker sends is no news.
		ErrorLog: slog.NewLogLogger(b.log.Handler(), slog.LevelDebug),
	}
	go func() {
		defer close(l.served)
		_ = l.server.Serve(l.line) // its only error is that it was closed
	}()
	return l
}

func (l *Link) watch(_ net.Conn, state http.ConnState) {
	if state == http.StateClosed {
		close(l.gone)
	}
}

// Close ends the line, and with it what the worker waits for.
func (l *Link) Close() {
	l.closing.Do(func() {
		_ = l.server.Close()
		<-l.served
		_ = l.line.conn.Close()
		if l.line.taken() {
			<-l.gone
		}
		l.broker.mu.Lock()
		defer l.broker.mu.Unlock()
		delete(l.broker.links, l)
	})
}

// oneConn is a listener of one connection, which is there from the first.
type oneConn struct {
	conn net.Conn
	next chan net.Conn

	closing sync.Once
	closed  chan struct{}
}

func (o *oneConn) Accept() (net.Conn, error) {
	select {
	case c := <-o.next:
		return c, nil
	case <-o.closed:
		return nil, net.ErrClosed
	}
}

// taken reports whether the server has the connection; ask when it has ended.
func (o *oneConn) taken() bool { return len(o.next) == 0 }

func (o *oneConn) Close() error {
	o.closing.Do(func() { close(o.closed) })
	return nil
}

func (o *oneConn) Addr() net.Addr { return o.conn.LocalAddr() }
