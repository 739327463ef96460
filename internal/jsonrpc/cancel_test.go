package jsonrpc_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"carrel/internal/jsonrpc"
	"carrel/protocol"
)

var errCanceled = &protocol.Error{Code: protocol.CodeCanceled}

// untilCanceled is a request that runs until its context ends.
func untilCanceled(ctx context.Context, _ string, _ json.RawMessage) (any, error) {
	<-ctx.Done()
	return nil, context.Cause(ctx)
}

func TestCancelEndsTheRequestAndCallReturnsItsError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := connect(t.Context(), handler{}, onRequest(untilCanceled), jsonrpc.Options{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		if err := p.host.Call(ctx, "execute", nil, nil); !errors.Is(err, errCanceled) {
			t.Errorf("Call: %v, want the peer's CodeCanceled", err)
		}
		if took := time.Since(start); took != time.Second {
			t.Errorf("Call returned after %v, want at once when its context ended", took)
		}
		p.hangUp(t)
	})
}

func TestResultThatCrossesTheCancelIsASuccess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := connect(t.Context(), handler{}, onRequest(func(ctx context.Context, _ string, _ json.RawMessage) (any, error) {
			<-ctx.Done()
			return 7, nil
		}), jsonrpc.Options{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var got int
		if err := p.host.Call(ctx, "execute", nil, &got); err != nil || got != 7 {
			t.Errorf("Call: %d, %v; want the result 7", got, err)
		}
		p.hangUp(t)
	})
}

func TestCancelIsSeenWhileDispatchIsBlocked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		p := connect(t.Context(), handler{}, handler{
			notify:  func(context.Context, string, json.RawMessage) error { <-release; return nil },
			request: untilCanceled,
		}, jsonrpc.Options{})
		ctx, cancel := context.WithCancel(t.Context())
		var call sync.WaitGroup
		call.Go(func() {
			if err := p.host.Call(ctx, "execute", nil, nil); !errors.Is(err, errCanceled) {
				t.Errorf("Call: %v, want CodeCanceled though the peer's dispatch is blocked", err)
			}
		})
		synctest.Wait()
		if err := p.host.Notify(t.Context(), "block", nil); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		cancel()
		call.Wait()
		close(release)
		p.hangUp(t)
	})
}

func TestCancelReachesARequestThatStillWaitsForDispatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var causes []error
		p := connect(t.Context(), handler{}, handler{
			notify: func(context.Context, string, json.RawMessage) error { <-release; return nil },
			request: func(ctx context.Context, _ string, _ json.RawMessage) (any, error) {
				causes = append(causes, context.Cause(ctx))
				return nil, context.Cause(ctx)
			},
		}, jsonrpc.Options{})
		if err := p.host.Notify(t.Context(), "block", nil); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var call sync.WaitGroup
		call.Go(func() {
			if err := p.host.Call(ctx, "execute", nil, nil); !errors.Is(err, errCanceled) {
				t.Errorf("Call: %v, want CodeCanceled", err)
			}
		})
		synctest.Wait()
		cancel()
		synctest.Wait()
		close(release)
		call.Wait()
		if len(causes) != 1 || !errors.Is(causes[0], errCanceled) {
			t.Errorf("causes when the handler began: %v, want CodeCanceled already", causes)
		}
		p.hangUp(t)
	})
}

func TestCancelIsSeenWhileAllOutputIsBlocked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r *raw
		ready, canceled := make(chan struct{}), make(chan struct{})
		r = connectRaw(t.Context(), onRequest(func(ctx context.Context, _ string, _ json.RawMessage) (any, error) {
			<-ready
			for {
				if err := r.conn.Notify(ctx, "event", number{1}); err != nil {
					close(canceled)
					return nil, err
				}
			}
		}), jsonrpc.Options{})
		close(ready)
		r.send(`{"jsonrpc":"2.0","id":"a","method":"execute"}` + "\n")
		synctest.Wait() // the peer reads nothing: the writer is blocked, the outbox full
		r.send(`{"jsonrpc":"2.0","method":"cancel","params":{"id":"\u0061"}}` + "\n")
		<-canceled
		if err := r.hangUp(); err != nil {
			t.Error(err)
		}
	})
}

func TestCallReturnsItsCauseWhenThePeerDoesNotConfirm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gone := errors.New("caller went away")
		r := connectRaw(t.Context(), handler{}, jsonrpc.Options{CancelGrace: 5 * time.Second})
		ctx, cancel := context.WithCancelCause(t.Context())
		start := time.Now()
		var call sync.WaitGroup
		call.Go(func() {
			if err := r.conn.Call(ctx, "execute", nil, nil); !errors.Is(err, gone) {
				t.Errorf("Call: %v, want the cause of its context", err)
			}
		})
		r.receive()
		cancel(gone)
		if got, want := r.receive(), `{"jsonrpc":"2.0","method":"cancel","params":{"id":1}}`; got != want {
			t.Errorf("sent %s, want %s", got, want)
		}
		call.Wait()
		if took := time.Since(start); took != 5*time.Second {
			t.Errorf("Call returned after %v, want the grace of 5s", took)
		}

		// The late answer is no violation, once; the connection goes on.
		r.send(`{"jsonrpc":"2.0","id":1,"result":"late"}` + "\n" + `{"jsonrpc":"2.0","id":"p","method":"ping"}` + "\n")
		if got := r.receive(); !strings.Contains(got, `"id":"p"`) {
			t.Errorf("after a late answer: %q, want the answer to ping", got)
		}
		r.send(`{"jsonrpc":"2.0","id":1,"result":"again"}` + "\n")
		if err := r.hangUp(); !errors.Is(err, jsonrpc.ErrProtocol) {
			t.Errorf("Run after a second late answer: %v, want ErrProtocol", err)
		}
	})
}

func TestCallIsBoundedEvenIfItsCancelCannotBeSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := connectRaw(t.Context(), handler{}, jsonrpc.Options{CancelGrace: 5 * time.Second})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		start := time.Now()
		var call sync.WaitGroup
		call.Go(func() {
			if err := r.conn.Call(ctx, "execute", nil, nil); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Call: %v, want its deadline", err)
			}
		})
		synctest.Wait() // the request itself is in the outbox
		fill, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		for r.conn.Notify(fill, "event", number{1}) == nil {
		}
		call.Wait()
		if took := time.Since(start); took != time.Minute+5*time.Second {
			t.Errorf("Call returned after %v, want deadline and grace", took)
		}
		if err := r.hangUp(); err != nil {
			t.Error(err)
		}
	})
}

func TestPeerThatConfirmsNoCancelIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := connectRaw(t.Context(), handler{}, jsonrpc.Options{CancelGrace: time.Second})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var calls sync.WaitGroup
		for range 1025 {
			calls.Go(func() {
				if err := r.conn.Call(ctx, "execute", nil, nil); err == nil {
					t.Error("Call without an answer succeeded")
				}
			})
		}
		r.rest() // reads, but never answers
		calls.Wait()
		if err := r.wait(); !errors.Is(err, jsonrpc.ErrProtocol) {
			t.Errorf("Run: %v, want ErrProtocol", err)
		}
	})
}
