package door_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"carrel/internal/door"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// once is a listener of one connection.
type once struct {
	conn chan net.Conn
	stop chan struct{}
	shut sync.Once
}

func (l *once) Accept() (net.Conn, error) {
	select {
	case c := <-l.conn:
		return c, nil
	case <-l.stop:
		return nil, net.ErrClosed
	}
}
func (l *once) Close() error   { l.shut.Do(func() { close(l.stop) }); return nil }
func (l *once) Addr() net.Addr { return &net.UnixAddr{} }

// open serves handler at the other end of a door.
func open(t *testing.T, handler http.HandlerFunc, most int) (*door.Door, *http.Server) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(fds[0]), "server")
	conn, err := net.FileConn(file)
	_ = file.Close()
	if err != nil {
		t.Fatal(err)
	}
	l := &once{conn: make(chan net.Conn, 1), stop: make(chan struct{})}
	l.conn <- conn
	server := &http.Server{Handler: handler, Protocols: new(http.Protocols), HTTP2: &http.HTTP2Config{MaxConcurrentStreams: most}}
	server.Protocols.SetUnencryptedHTTP2(true)
	var served sync.WaitGroup
	served.Go(func() { _ = server.Serve(l) })
	d, err := door.Open(t.Context(), os.NewFile(uintptr(fds[1]), "worker"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = d.Close()
		_ = server.Close()
		served.Wait()
	})
	return d, server
}

func get(t *testing.T, d *door.Door, path string) (*http.Response, error) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, door.BaseURL+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	return d.RoundTrip(r)
}

func TestAllRequestsShareTheLineAndWaitTheirTurn(t *testing.T) {
	const most, requests = 100, 400 // 100 is what a client takes for granted until it has read the settings
	var mu sync.Mutex
	going, highest := 0, 0
	count := func(by int) {
		mu.Lock()
		defer mu.Unlock()
		going += by
		highest = max(highest, going)
	}
	d, _ := open(t, func(w http.ResponseWriter, r *http.Request) {
		count(1)
		defer count(-1)
		_, _ = io.WriteString(w, r.URL.Path)
	}, most)
	var all sync.WaitGroup
	for range requests {
		all.Go(func() {
			resp, err := get(t, d, "/v1/messages")
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = resp.Body.Close() }()
			body, err := io.ReadAll(resp.Body)
			if err != nil || string(body) != "/v1/messages" || resp.ProtoMajor != 2 {
				t.Errorf("%q by HTTP/%d, %v", body, resp.ProtoMajor, err)
			}
		})
	}
	all.Wait()
	if highest > most {
		t.Errorf("%d requests at a time, the broker takes %d", highest, most)
	}
}

func TestChunksArriveAsTheyAreSent(t *testing.T) {
	next := make(chan struct{})
	d, _ := open(t, func(w http.ResponseWriter, _ *http.Request) {
		for range 3 {
			_, _ = io.WriteString(w, "data\n")
			_ = http.NewResponseController(w).Flush()
			<-next // not before the last has arrived
		}
	}, 1)
	resp, err := get(t, d, "/")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	lines := bufio.NewReader(resp.Body)
	for range 3 {
		if line, err := lines.ReadString('\n'); err != nil || line != "data\n" {
			t.Fatalf("%q, %v", line, err)
		}
		next <- struct{}{}
	}
}

func TestBrokerThatGoesAwayIsAnError(t *testing.T) {
	begun := make(chan struct{})
	d, server := open(t, func(_ http.ResponseWriter, r *http.Request) {
		close(begun)
		<-r.Context().Done()
	}, 1)
	failed := make(chan error, 1)
	go func() {
		resp, err := get(t, d, "/")
		if err == nil {
			_, err = io.ReadAll(resp.Body)
			_ = resp.Body.Close()
		}
		failed <- err
	}()
	<-begun
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-failed; err == nil {
		t.Error("a request whose broker went away has an answer")
	}
	if resp, err := get(t, d, "/"); err == nil {
		_ = resp.Body.Close()
		t.Error("a later request has an answer")
	}
}

func TestRequestEndsWithItsContext(t *testing.T) {
	begun, ended := make(chan struct{}), make(chan struct{})
	d, _ := open(t, func(_ http.ResponseWriter, r *http.Request) {
		close(begun)
		<-r.Context().Done()
		close(ended)
	}, 1)
	ctx, cancel := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, door.BaseURL, strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		<-begun
		cancel()
	}()
	resp, err := d.RoundTrip(r)
	if err == nil {
		_, err = io.ReadAll(resp.Body)
		_ = resp.Body.Close()
	}
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	<-ended // the broker hears of it
}

func TestWithoutALineThereIsNoDoor(t *testing.T) {
	if _, err := door.Open(t.Context(), nil); err == nil {
		t.Error("a door without a line")
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := door.Open(t.Context(), null); err == nil {
		t.Error("a door of what is no socket")
	}
	if _, err := null.Stat(); err == nil {
		t.Error("the descriptor is open after the error")
	}
}
