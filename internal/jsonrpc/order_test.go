package jsonrpc_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"carrel/internal/jsonrpc"
)

type number struct{ N int }

// collector is a Notify that keeps the numbers it is sent.
type collector struct {
	mu  sync.Mutex
	got []int
}

func (c *collector) notify(_ context.Context, _ string, params json.RawMessage) error {
	var n number
	if err := json.Unmarshal(params, &n); err != nil {
		return err
	}
	runtime.Gosched() // give an overtaking answer its chance
	c.mu.Lock()
	defer c.mu.Unlock()
	c.got = append(c.got, n.N)
	return nil
}

func (c *collector) numbers() []int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]int(nil), c.got...)
}

func upTo(n int) []int {
	list := make([]int, n)
	for i := range list {
		list[i] = i
	}
	return list
}

func TestAnswerNeverOvertakesNotifications(t *testing.T) {
	const count = 300
	var seen collector
	hostEnd, workerEnd := osPipes(t)
	var p *pair
	ready := make(chan struct{})
	p = connectOver(t.Context(), hostEnd, workerEnd, handler{notify: seen.notify}, onRequest(
		func(ctx context.Context, _ string, _ json.RawMessage) (any, error) {
			<-ready
			for i := range count {
				if err := p.worker.Notify(ctx, "event", number{i}); err != nil {
					return nil, err
				}
			}
			return nil, nil
		}), jsonrpc.Options{})
	close(ready)
	for range 20 {
		seen.got = nil
		if err := p.host.Call(t.Context(), "execute", nil, nil); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(upTo(count), seen.numbers()); diff != "" {
			t.Fatalf("notifications handled when Call returned (-want +got):\n%s", diff)
		}
	}
	p.hangUp(t)
}

func TestBothDirectionsKeepTheirOrderAtOnce(t *testing.T) {
	const count = 2000
	var atHost, atWorker collector
	hostEnd, workerEnd := osPipes(t)
	done := func(_ context.Context, _ string, _ json.RawMessage) (any, error) { return nil, nil }
	p := connectOver(t.Context(), hostEnd, workerEnd,
		handler{notify: atHost.notify, request: done}, handler{notify: atWorker.notify, request: done},
		jsonrpc.Options{Queue: 8})
	var senders sync.WaitGroup
	for _, c := range []*jsonrpc.Conn{p.host, p.worker} {
		senders.Go(func() {
			for i := range count {
				if err := c.Notify(t.Context(), "event", number{i}); err != nil {
					t.Error(err)
					return
				}
			}
			if err := c.Call(t.Context(), "flush", nil, nil); err != nil {
				t.Error(err)
			}
		})
	}
	senders.Wait()
	p.hangUp(t)
	for name, c := range map[string]*collector{"host": &atHost, "worker": &atWorker} {
		if diff := cmp.Diff(upTo(count), c.numbers()); diff != "" {
			t.Errorf("at the %s (-want +got):\n%s", name, diff)
		}
	}
}

func TestRequestStartsAfterEarlierNotifications(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var handled bool // no lock: that the race detector stays silent is part of the claim
		h := handler{
			notify: func(context.Context, string, json.RawMessage) error {
				time.Sleep(time.Minute)
				handled = true
				return nil
			},
			request: func(context.Context, string, json.RawMessage) (any, error) { return handled, nil },
		}
		p := connect(t.Context(), handler{}, h, jsonrpc.Options{})
		if err := p.host.Notify(t.Context(), "slow", nil); err != nil {
			t.Fatal(err)
		}
		var got bool
		if err := p.host.Call(t.Context(), "ask", nil, &got); err != nil {
			t.Fatal(err)
		}
		if !got {
			t.Error("the request ran before the notification sent ahead of it was handled")
		}
		p.hangUp(t)
	})
}

func TestWhatCameBeforeTheEndOfInputIsHandled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen collector
		slow := func(ctx context.Context, method string, params json.RawMessage) error {
			time.Sleep(time.Second)
			if ctx.Err() != nil {
				t.Error("the context of a notification ended with the input")
			}
			return seen.notify(ctx, method, params)
		}
		r := connectRaw(t.Context(), handler{notify: slow}, jsonrpc.Options{})
		var answered sync.WaitGroup
		answered.Go(func() {
			if err := r.conn.Call(t.Context(), "execute", nil, nil); err != nil {
				t.Errorf("Call whose answer came before the end: %v", err)
			}
		})
		r.receive()
		for i := range 5 {
			r.sendf(`{"jsonrpc":"2.0","method":"event","params":{"N":%d}}`+"\n", i)
		}
		r.send(`{"jsonrpc":"2.0","id":1,"result":{}}` + "\n")
		if err := r.hangUp(); err != nil {
			t.Error(err)
		}
		answered.Wait()
		if diff := cmp.Diff(upTo(5), seen.numbers()); diff != "" {
			t.Errorf("handled (-want +got):\n%s", diff)
		}
	})
}

func TestEndOfInputEndsRequestsAndStillWritesTheirAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := connectRaw(t.Context(), onRequest(func(ctx context.Context, _ string, _ json.RawMessage) (any, error) {
			<-ctx.Done()
			if !errors.Is(context.Cause(ctx), jsonrpc.ErrClosed) {
				t.Errorf("cause %v, want ErrClosed", context.Cause(ctx))
			}
			return "over", nil
		}), jsonrpc.Options{})
		r.send(`{"jsonrpc":"2.0","id":1,"method":"wait"}` + "\n")
		_ = r.end.WriteCloser.Close()
		if diff := cmp.Diff([]string{`{"jsonrpc":"2.0","id":1,"result":"over"}`}, r.rest()); diff != "" {
			t.Errorf("answers (-want +got):\n%s", diff)
		}
		if err := r.wait(); err != nil {
			t.Error(err)
		}
	})
}

func TestLongLinesArriveWhole(t *testing.T) {
	text := strings.Repeat("ü<\n", 1<<20/4)
	hostEnd, workerEnd := osPipes(t)
	p := connectOver(t.Context(), hostEnd, workerEnd, handler{}, onRequest(
		func(_ context.Context, _ string, params json.RawMessage) (any, error) { return params, nil }), jsonrpc.Options{})
	var calls sync.WaitGroup
	for range 4 {
		calls.Go(func() {
			var got struct{ Text string }
			if err := p.host.Call(t.Context(), "echo", map[string]string{"Text": text}, &got); err != nil {
				t.Error(err)
			} else if got.Text != text {
				t.Errorf("%d bytes came back changed (%d)", len(text), len(got.Text))
			}
		})
	}
	calls.Wait()
	p.hangUp(t)
}

func TestParamsMayBeKept(t *testing.T) {
	var kept []json.RawMessage
	r := connectRaw(t.Context(), handler{notify: func(_ context.Context, _ string, params json.RawMessage) error {
		kept = append(kept, params)
		return nil
	}}, jsonrpc.Options{})
	for i := range 100 {
		r.sendf(`{"jsonrpc":"2.0","method":"m","params":[%d]}`+"\n", i)
	}
	if err := r.hangUp(); err != nil {
		t.Fatal(err)
	}
	for i, params := range kept {
		var got []int
		if err := json.Unmarshal(params, &got); err != nil || got[0] != i {
			t.Fatalf("params %d are %s later", i, params)
		}
	}
}

func TestAfterTheEndEverythingFailsWithErrClosed(t *testing.T) {
	p := connect(t.Context(), handler{}, handler{}, jsonrpc.Options{})
	if err := p.host.Err(); err != nil {
		t.Errorf("Err before the end: %v", err)
	}
	p.hangUp(t)
	<-p.host.Done()
	if err := p.host.Err(); err != nil {
		t.Errorf("Err after a clean end: %v", err)
	}
	if err := p.host.Call(t.Context(), "m", nil, nil); !errors.Is(err, jsonrpc.ErrClosed) {
		t.Errorf("Call: %v", err)
	}
	if err := p.host.Notify(t.Context(), "m", nil); !errors.Is(err, jsonrpc.ErrClosed) {
		t.Errorf("Notify: %v", err)
	}
	if err := p.host.Run(t.Context()); err == nil {
		t.Error("second Run: want an error")
	}
}

func TestRunClosesTheStreamAndTellsTheCauseOfItsContext(t *testing.T) {
	stop := errors.New("daemon stops")
	ctx, cancel := context.WithCancelCause(t.Context())
	r := connectRaw(ctx, handler{}, jsonrpc.Options{})
	call := make(chan error, 1)
	go func() { call <- r.conn.Call(t.Context(), "m", nil, nil) }()
	r.receive()
	cancel(stop)
	if err := r.wait(); !errors.Is(err, stop) || !errors.Is(r.conn.Err(), stop) {
		t.Errorf("Run: %v, Err: %v", err, r.conn.Err())
	}
	if err := <-call; !errors.Is(err, jsonrpc.ErrClosed) || !errors.Is(err, stop) {
		t.Errorf("pending Call: %v, want ErrClosed and what ended the connection", err)
	}
	if _, err := r.end.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the peer reads %v, want EOF", err)
	}
}

func TestAnswerGivenWhileTheContextEndsIsStillWritten(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	r := connectRaw(ctx, onRequest(func(ctx context.Context, _ string, _ json.RawMessage) (any, error) {
		cancel() // a worker's main reacting to "shutdown" faster than its answer
		<-ctx.Done()
		return struct{}{}, nil
	}), jsonrpc.Options{})
	r.send(`{"jsonrpc":"2.0","id":"s","method":"shutdown"}` + "\n")
	if got, want := r.receive(), `{"jsonrpc":"2.0","id":"s","result":{}}`; got != want {
		t.Errorf("answer %q, want %q", got, want)
	}
	if err := r.wait(); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
