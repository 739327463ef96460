package jsonrpc_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"carrel/internal/jsonrpc"
	"carrel/protocol"
)

func TestRequestsBeyondTheLimitAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var running, most atomic.Int64
		p := connect(t.Context(), handler{}, onRequest(func(ctx context.Context, _ string, _ json.RawMessage) (any, error) {
			most.Store(max(most.Load(), running.Add(1)))
			defer running.Add(-1)
			<-ctx.Done()
			return nil, context.Cause(ctx)
		}), jsonrpc.Options{MaxRequests: 3})
		ctx, cancel := context.WithCancel(t.Context())
		var calls sync.WaitGroup
		var refused, canceled atomic.Int64
		for range 10 {
			calls.Go(func() {
				switch err := p.host.Call(ctx, "execute", nil, nil); protocol.CodeOf(err) {
				case protocol.CodeQueueFull:
					refused.Add(1)
				case protocol.CodeCanceled:
					canceled.Add(1)
				default:
					t.Errorf("Call: %v", err)
				}
			})
		}
		synctest.Wait()
		cancel()
		calls.Wait()
		if refused.Load() != 7 || canceled.Load() != 3 || most.Load() != 3 {
			t.Errorf("refused %d, ran %d, at once %d; want 7, 3, 3", refused.Load(), canceled.Load(), most.Load())
		}
		// The slots are free again.
		again, stop := context.WithTimeout(t.Context(), time.Second)
		defer stop()
		if err := p.host.Call(again, "execute", nil, nil); !errors.Is(err, errCanceled) {
			t.Errorf("Call after the others ended: %v, want that it ran", err)
		}
		p.hangUp(t)
	})
}

func TestPeerThatNeverReadsBlocksNotifyUntilItsContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := connectRaw(t.Context(), handler{}, jsonrpc.Options{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		sentBytes := 0
		params := map[string]string{"text": strings.Repeat("x", 1000)}
		for {
			if err := r.conn.Notify(ctx, "event", params); err != nil {
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("Notify: %v, want its deadline", err)
				}
				break
			}
			sentBytes += 1000
		}
		if limit := 2 * 64 << 10; sentBytes > limit {
			t.Errorf("%d bytes were queued for a peer that does not read, want at most %d", sentBytes, limit)
		}
		if err := r.hangUp(); err != nil {
			t.Error(err)
		}
	})
}

func TestContextEndsAConnectionWhosePeerNeitherReadsNorWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		r := connectRaw(ctx, handler{}, jsonrpc.Options{})
		var senders sync.WaitGroup
		for range 5 {
			senders.Go(func() {
				for {
					if err := r.conn.Notify(t.Context(), "event", number{1}); err != nil {
						if !errors.Is(err, jsonrpc.ErrClosed) {
							t.Errorf("Notify: %v, want ErrClosed", err)
						}
						return
					}
				}
			})
		}
		synctest.Wait()
		cancel()
		senders.Wait()
		if err := r.wait(); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

func TestSlowHandlerHoldsThePeerBack(t *testing.T) {
	for _, tt := range []struct {
		name string
		body string
		most int // messages the peer gets rid of; the reader's own buffer holds 64 KiB
	}{
		{"by count", "x", 4 + 64<<10/50 + 3},
		{"by bytes", strings.Repeat("x", 100<<10), 12},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				release := make(chan struct{})
				r := connectRaw(t.Context(), handler{notify: func(context.Context, string, json.RawMessage) error {
					<-release
					return nil
				}}, jsonrpc.Options{Queue: max(4, tt.most/300), MaxLineBytes: 1 << 20})
				var sent atomic.Int64
				var peer sync.WaitGroup
				peer.Go(func() {
					for range 5000 {
						r.sendf(`{"jsonrpc":"2.0","method":"m","params":["%s"]}`+"\n", tt.body)
						sent.Add(1)
						if tt.most < 100 && sent.Load() > 100 {
							return
						}
					}
				})
				synctest.Wait()
				if got := sent.Load(); got > int64(tt.most) {
					t.Errorf("%d messages were read ahead of a blocked handler, want at most %d", got, tt.most)
				}
				close(release)
				peer.Wait()
				if err := r.hangUp(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestPeerThatReadsNoRefusalIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := connectRaw(t.Context(), handler{}, jsonrpc.Options{})
		for range 5000 {
			r.send("[]\n")
		}
		if err := r.wait(); !errors.Is(err, jsonrpc.ErrProtocol) {
			t.Errorf("Run: %v, want ErrProtocol", err)
		}
	})
}

func TestPeerThatReadsNoAnswerHoldsItsSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		big := strings.Repeat("x", 100<<10)
		var started atomic.Int64
		r := connectRaw(t.Context(), onRequest(func(context.Context, string, json.RawMessage) (any, error) {
			started.Add(1)
			return big, nil
		}), jsonrpc.Options{MaxRequests: 4})
		for id := range 50 {
			r.sendf(`{"jsonrpc":"2.0","id":%d,"method":"get"}`+"\n", id)
			synctest.Wait()
		}
		// One answer is in Write, one in the outbox, four wait with their slots.
		if got := started.Load(); got != 6 {
			t.Errorf("%d requests were served for a peer that reads nothing, want 6", got)
		}
		if err := r.hangUp(); err != nil {
			t.Error(err)
		}
	})
}

func TestMessageThatDoesNotFitIntoALineIsNotSent(t *testing.T) {
	tooLarge := &protocol.Error{Code: protocol.CodeTooLarge}
	huge := map[string]string{"text": strings.Repeat("x", 2000)}
	p := connect(t.Context(), handler{}, onRequest(func(context.Context, string, json.RawMessage) (any, error) {
		return huge, nil
	}), jsonrpc.Options{MaxLineBytes: 2000})
	if err := p.host.Notify(t.Context(), "m", huge); !errors.Is(err, tooLarge) {
		t.Errorf("Notify: %v", err)
	}
	if err := p.host.Call(t.Context(), "m", huge, nil); !errors.Is(err, tooLarge) {
		t.Errorf("Call with huge params: %v", err)
	}
	if err := p.host.Call(t.Context(), "m", nil, nil); !errors.Is(err, tooLarge) {
		t.Errorf("Call with a huge result: %v", err)
	}
	p.hangUp(t)
}

func TestWhatThePeerWouldRefuseIsNotSent(t *testing.T) {
	p := connect(t.Context(), handler{}, handler{}, jsonrpc.Options{})
	for name, params := range map[string]any{
		"scalar":         5,
		"string":         "text",
		"not UTF-8":      json.RawMessage("[\"\xff\"]"),
		"not JSON":       json.RawMessage("{"),
		"not encodable":  []any{func() {}},
		"nested too far": json.RawMessage(strings.Repeat("[", 10000) + strings.Repeat("]", 10000)),
	} {
		if err := p.host.Notify(t.Context(), "m", params); err == nil {
			t.Errorf("%s: Notify succeeded", name)
		}
	}
	for name, params := range map[string]any{
		"nil pointer":  (*number)(nil),
		"line ends":    json.RawMessage("[\n1,\n2\n]"),
		"odd but fine": []string{"\u2028\x00\n\\"},
	} {
		if err := p.host.Notify(t.Context(), "odd \"name\"\n", params); err != nil {
			t.Errorf("%s: Notify: %v", name, err)
		}
	}
	p.hangUp(t)
}

func TestLastMessagesOfAPeerThatStoppedReadingAreHandled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen collector
		slow := func(ctx context.Context, method string, params json.RawMessage) error {
			time.Sleep(time.Minute)
			return seen.notify(ctx, method, params)
		}
		r := connectRaw(t.Context(), handler{notify: slow}, jsonrpc.Options{})
		_ = r.end.ReadCloser.Close() // a worker that dies: its stdin goes first
		if err := r.conn.Notify(t.Context(), "m", nil); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if err := r.conn.Notify(t.Context(), "m", nil); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("Notify after a failed Write: %v, want its error", err)
		}
		for i := range 3 {
			r.sendf(`{"jsonrpc":"2.0","method":"event","params":{"N":%d}}`+"\n", i)
		}
		_ = r.end.WriteCloser.Close()
		if err := r.wait(); err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(upTo(3), seen.numbers()); diff != "" {
			t.Errorf("handled (-want +got):\n%s", diff)
		}
	})
}

func TestPeerThatStopsReadingForGoodIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := connectRaw(t.Context(), handler{}, jsonrpc.Options{})
		_ = r.end.ReadCloser.Close()
		if err := r.conn.Notify(t.Context(), "m", nil); err != nil {
			t.Fatal(err)
		}
		if err := r.wait(); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("Run: %v, want the error of the failed Write", err)
		}
	})
}
