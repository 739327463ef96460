package httpapi

import (
	"errors"
	"math/rand/v2"
	"net"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"carrel/client"
	"carrel/protocol"
)

// cutListener cuts its connections after a random number of written bytes, in
// the middle of whatever goes out.
type cutListener struct{ net.Listener }

func (l cutListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &cutConn{Conn: c, left: 800 + rand.IntN(8000)}, nil
}

type cutConn struct {
	net.Conn

	left int
}

func (c *cutConn) Write(b []byte) (int, error) {
	if len(b) > c.left {
		n, _ := c.Conn.Write(b[:c.left])
		c.left = 0
		c.Conn.Close()
		return n, errors.New("cut off")
	}
	c.left -= len(b)
	return c.Conn.Write(b)
}

// Forty clients follow one run whose daemon cuts every connection after a few
// kilobytes, while the run goes on.
func TestStormOfReconnectsShowsNobodyAGapOrADouble(t *testing.T) {
	const clients, events = 40, 300
	f := newFake()
	id := f.add("u")
	server := httptest.NewUnstartedServer(New(f, Options{KeepAlive: time.Hour}))
	server.Listener = cutListener{server.Listener}
	server.Start()
	defer server.Close()

	var group errgroup.Group
	var halfway sync.WaitGroup // the second half comes when all are following
	halfway.Add(clients)
	for range clients {
		group.Go(func() error {
			c, err := client.New(server.URL, client.Options{})
			if err != nil {
				halfway.Done()
				return err
			}
			defer c.Close()
			var once sync.Once
			defer func() { once.Do(halfway.Done) }()
			var last protocol.Event
			for e, err := range c.Events(t.Context(), id, 0) {
				if err != nil {
					return err
				}
				if e.Seq != last.Seq+1 {
					return errors.New("gap or double")
				}
				if last = e; e.Seq == events/2 {
					once.Do(halfway.Done)
				}
			}
			if !last.Type.Ends() {
				return errors.New("ended early")
			}
			return nil
		})
	}
	for range events / 2 {
		f.emit(id, protocol.EventTextDelta, protocol.TextDelta{Text: "some words to fill a line"})
	}
	halfway.Wait()
	for range events / 2 {
		f.emit(id, protocol.EventTextDelta, protocol.TextDelta{Text: "and some more of them"})
	}
	f.emit(id, protocol.EventRunFinished, result(id, "done"))
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
	server.Close() // waits for the handlers
	if n := f.openReaders(); n != 0 {
		t.Errorf("%d readers are left", n)
	}
}
