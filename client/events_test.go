package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"carrel/protocol"
)

// collect follows run r and returns the seqs seen and the error at the end.
func collect(ctx context.Context, c *Client, after int64) (seqs []int64, err error) {
	for e, err := range c.Events(ctx, "r", after) {
		if err != nil {
			return seqs, err
		}
		seqs = append(seqs, e.Seq)
	}
	return seqs, nil
}

func TestEventsAreGivenOnceEachHoweverTheConnectionFares(t *testing.T) {
	const path = "GET /v1/runs/r/events"
	for _, tt := range []struct {
		name     string
		after    int64
		answers  []answer
		want     []int64
		requests []string
	}{
		{
			"whole", 0,
			[]answer{{body: frames(1, 2, delta) + frames(3, 3, finished)}},
			[]int64{1, 2, 3},
			[]string{path},
		},
		{
			"cut between frames", 0,
			[]answer{{body: frames(1, 2, delta), bodyErr: io.ErrUnexpectedEOF}, {body: frames(3, 3, finished)}},
			[]int64{1, 2, 3},
			[]string{path, path + " 2"},
		},
		{
			"cut within a frame", 0,
			[]answer{{body: frames(1, 2, delta)[:100], bodyErr: io.ErrUnexpectedEOF}, {body: frames(2, 2, delta) + frames(3, 3, finished)}},
			[]int64{1, 2, 3},
			[]string{path, path + " 1"},
		},
		{
			"ended early in order", 0,
			[]answer{
				{body: frames(1, 2, delta) + ": error shutting_down: bye\n\n"},
				jsonAnswer(`{"run_id":"r","status":"running","last_seq":2}`),
				{body: frames(3, 3, finished)},
			},
			[]int64{1, 2, 3},
			[]string{path, "GET /v1/runs/r", path + " 2"},
		},
		{
			"daemon away for a while", 5,
			[]answer{
				{err: errors.New("connection refused")},
				problem(503, protocol.CodeShuttingDown, ""),
				{status: 502, header: http.Header{"Content-Type": {"text/html"}}, body: "<html>"},
				problem(429, protocol.CodeQueueFull, `,"retry_after_s":2`),
				{body: frames(6, 6, finished)},
			},
			[]int64{6},
			slices.Repeat([]string{path + " 5"}, 5),
		},
		{
			"silent", 0,
			[]answer{{body: frames(1, 1, delta), silent: true}, {body: ": keep-alive\n\n" + frames(2, 2, finished)}},
			[]int64{1, 2},
			[]string{path, path + " 1"},
		},
		{
			"beyond the end", 7,
			[]answer{{body: ""}, jsonAnswer(`{"run_id":"r","status":"finished","last_seq":3}`)},
			nil,
			[]string{path + " 7", "GET /v1/runs/r"},
		},
		{
			"many short connections", 0,
			func() (answers []answer) {
				for seq := range int64(30) {
					answers = append(answers, answer{body: frames(seq+1, seq+1, delta), bodyErr: io.ErrUnexpectedEOF})
				}
				return append(answers, answer{body: frames(31, 31, finished)})
			}(),
			sequence(31), nil,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := &daemon{answers: tt.answers}
				got, err := collect(t.Context(), newClient(t, d), tt.after)
				if err != nil {
					t.Error(err)
				}
				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Error(diff)
				}
				if diff := cmp.Diff(tt.requests, d.requests); tt.requests != nil && diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}

func sequence(n int64) (seqs []int64) {
	for i := range n {
		seqs = append(seqs, i+1)
	}
	return seqs
}

func TestBrokenStreamIsAnErrorAndNotARetry(t *testing.T) {
	for _, tt := range []struct{ name, body, want string }{
		{"gap", frames(1, 1, delta) + frames(3, 3, finished), "event 3 after event 1"},
		{"double", frames(1, 2, delta) + frames(2, 2, finished), "event 2 after event 2"},
		{"does not begin where asked", frames(2, 2, delta), "event 2 after event 0"},
		{"another run", strings.ReplaceAll(frames(1, 1, delta), `"r"`, `"s"`), `an event of run "s"`},
		{"other id", strings.Replace(frames(1, 1, delta), "id: 1", "id: 2", 1), `in a frame that says "2"`},
		{"other type", strings.Replace(frames(1, 1, delta), "event: TEXT_DELTA", "event: USAGE", 1), `("USAGE")`},
		{"event 0", frames(0, 0, delta), "event 0 after event 0"},
		{"no JSON", "id: 1\nevent: TEXT_DELTA\ndata: {\n\n", "after event 0"},
		{"long", "data: " + strings.Repeat("x", maxFrameBytes), "longer than"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := &daemon{answers: []answer{{body: tt.body}}}
			_, err := collect(t.Context(), newClient(t, d), 0)
			if !errors.Is(err, ErrBrokenStream) || !strings.Contains(err.Error(), tt.want) || len(d.requests) != 1 {
				t.Errorf("after %d requests: %v", len(d.requests), err)
			}
		})
	}
}

// The daemon says that there is no more, and the run's end was never given.
func TestRunThatEndedWithoutItsEndIsAnError(t *testing.T) {
	for _, lastSeq := range []string{"1", "2"} {
		d := &daemon{answers: []answer{{body: frames(1, 2, delta)}, jsonAnswer(`{"run_id":"r","status":"finished","last_seq":` + lastSeq + `}`)}}
		if got, err := collect(t.Context(), newClient(t, d), 0); !errors.Is(err, ErrBrokenStream) || len(got) != 2 || len(d.requests) != 2 {
			t.Errorf("last_seq %s: %d events, %d requests, %v", lastSeq, len(got), len(d.requests), err)
		}
	}
}

func TestAnswerThatNoRepetitionChangesEndsTheWalk(t *testing.T) {
	for status, code := range map[int]protocol.Code{404: protocol.CodeNotFound, 401: protocol.CodeUnauthorized, 400: protocol.CodeInvalidRequest} {
		d := &daemon{answers: []answer{problem(status, code, "")}}
		_, err := collect(t.Context(), newClient(t, d), 0)
		if protocol.CodeOf(err) != code || len(d.requests) != 1 {
			t.Errorf("%d: after %d requests: %v", status, len(d.requests), err)
		}
	}
}

func TestDaemonThatStaysAwayIsGivenUpInBoundedTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &daemon{answers: []answer{{err: errors.New("connection refused")}}}
		began := time.Now()
		_, err := collect(t.Context(), newClient(t, d), 0)
		if err == nil || !strings.Contains(err.Error(), "gave up after 10 tries") || !strings.Contains(err.Error(), "refused") {
			t.Errorf("error %v", err)
		}
		if took := time.Since(began); len(d.requests) != maxTries || took > 27*time.Second {
			t.Errorf("%d requests in %s", len(d.requests), took)
		}
	})
}

func TestRetryAfterIsWaitedForWithinABound(t *testing.T) {
	for given, want := range map[string]time.Duration{"3": 3 * time.Second, "120": maxRetryAfter} {
		synctest.Test(t, func(t *testing.T) {
			d := &daemon{answers: []answer{problem(503, protocol.CodeShuttingDown, `,"retry_after_s":`+given), {body: frames(1, 1, finished)}}}
			began := time.Now()
			if _, err := collect(t.Context(), newClient(t, d), 0); err != nil {
				t.Error(err)
			}
			if took := time.Since(began); took < want || took > want+firstWait {
				t.Errorf("waited %s, want %s", took, want)
			}
		})
	}
}

func TestWhoAsksForALongWaitGetsNoOtherTry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &daemon{answers: []answer{problem(503, protocol.CodeShuttingDown, `,"retry_after_s":121`)}}
		began := time.Now()
		_, err := collect(t.Context(), newClient(t, d), 0)
		e, ok := errors.AsType[*Error](err)
		if !ok || e.RetryAfter != 121*time.Second || len(d.requests) != 1 || time.Since(began) != 0 {
			t.Errorf("%d requests in %s: %v", len(d.requests), time.Since(began), err)
		}
	})
}

// A quiet run: nothing but keep-alives for more than silenceLimit.
func TestStreamThatIsKeptAliveIsNotGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &daemon{answers: []answer{{body: strings.Repeat(": keep-alive!!\n\n", 20) + frames(1, 1, finished), pause: 15 * time.Second}}}
		if got, err := collect(t.Context(), newClient(t, d), 0); err != nil || len(got) != 1 || len(d.requests) != 1 {
			t.Errorf("%d events, %d requests, %v", len(got), len(d.requests), err)
		}
	})
}

func TestConsumerMayStopAtAnyEvent(t *testing.T) {
	d := &daemon{answers: []answer{{body: frames(1, 3, delta), silent: true}}}
	for e, err := range newClient(t, d).Events(t.Context(), "r", 0) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Seq == 2 {
			break
		}
	}
}

func TestCanceledWalkGivesTheCauseOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		errWhy := errors.New("enough")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(errWhy) })
		d := &daemon{answers: []answer{{body: frames(1, 1, delta), silent: true}}}
		var errs []error
		for _, err := range newClient(t, d).Events(ctx, "r", 0) {
			errs = append(errs, err)
		}
		if len(errs) != 2 || errs[0] != nil || !errors.Is(errs[1], errWhy) {
			t.Errorf("got %v", errs)
		}
	})
}

// A real connection, cut by a real server.
func TestCutConnectionIsResumed(t *testing.T) {
	var connections atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var after int64
		if _, err := fmt.Sscan(r.Header.Get("Last-Event-ID"), &after); err != nil && connections.Load() > 0 {
			t.Errorf("Last-Event-ID %q: %v", r.Header.Get("Last-Event-ID"), err)
		}
		connections.Add(1)
		w.Header().Set("Content-Type", "text/event-stream")
		next := frames(after+1, after+1, delta)
		if after == 9 {
			next = frames(10, 10, finished)
		}
		_, _ = io.WriteString(w, next+frames(after+2, after+2, delta)[:30])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}))
	defer server.Close()
	c, err := New(server.URL, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	got, err := collect(t.Context(), c, 0)
	if diff := cmp.Diff(sequence(10), got); diff != "" || err != nil {
		t.Error(err, diff)
	}
	if n := connections.Load(); n != 10 {
		t.Errorf("%d connections", n)
	}
}
