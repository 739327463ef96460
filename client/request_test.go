package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"carrel/protocol"
)

func TestErrorHasWhatTheAnswerTells(t *testing.T) {
	header := func(more ...string) http.Header {
		h := http.Header{"Content-Type": {protocol.ProblemMediaType}, "X-Request-Id": {"q"}}
		for i := 0; i < len(more); i += 2 {
			h.Set(more[i], more[i+1])
		}
		return h
	}
	date := time.Now().Add(time.Hour).UTC().Format(http.TimeFormat)
	for _, tt := range []struct {
		name   string
		answer answer
		want   Error
	}{
		{
			"of the daemon",
			answer{412, header(), `{"code":"conflict","detail":"d","run_id":"r"}`, nil, 0, false, nil},
			Error{Code: protocol.CodeConflict, Status: 412, Message: "d", RunID: "r", RequestID: "q"},
		},
		{
			"the document is more exact than the header",
			answer{429, header("Retry-After", "3"), `{"code":"queue_full","detail":"d","retry_after_s":2.5}`, nil, 0, false, nil},
			Error{Code: protocol.CodeQueueFull, Status: 429, Message: "d", RetryAfter: 2500 * time.Millisecond, RequestID: "q"},
		},
		{
			"the header alone",
			answer{503, header("Retry-After", "3"), `{"code":"shutting_down","detail":"d"}`, nil, 0, false, nil},
			Error{Code: protocol.CodeShuttingDown, Status: 503, Message: "d", RetryAfter: 3 * time.Second, RequestID: "q"},
		},
		{
			"a number that no duration holds",
			answer{503, header("Retry-After", "1e300"), `{"code":"shutting_down","detail":"d"}`, nil, 0, false, nil},
			Error{Code: protocol.CodeShuttingDown, Status: 503, Message: "d", RetryAfter: 365 * 24 * time.Hour, RequestID: "q"},
		},
		{
			"no number at all",
			answer{503, header("Retry-After", "NaN"), `{"code":"shutting_down","detail":"d"}`, nil, 0, false, nil},
			Error{Code: protocol.CodeShuttingDown, Status: 503, Message: "d", RequestID: "q"},
		},
		{
			"of a proxy, which knows when",
			answer{503, http.Header{"Content-Type": {"text/html"}, "Retry-After": {"7"}}, "<html>", nil, 0, false, nil},
			Error{
				Code: protocol.CodeInternal, Status: 503, RetryAfter: 7 * time.Second,
				Message: "GET http://carrel.test/v1/system: answered 503 Service Unavailable, which is no answer of carrel's",
			},
		},
		{
			"a date in the past",
			answer{429, http.Header{"Content-Type": {"text/html"}, "Retry-After": {"Mon, 02 Jan 2006 15:04:05 GMT"}}, "", nil, 0, false, nil},
			Error{Code: protocol.CodeRateLimited, Status: 429, Message: "GET http://carrel.test/v1/system: answered 429 Too Many Requests, which is no answer of carrel's"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := newClient(t, &daemon{answers: []answer{tt.answer}}).System(t.Context())
			e, ok := errors.AsType[*Error](err)
			if !ok {
				t.Fatalf("error %v", err)
			}
			if diff := cmp.Diff(tt.want, *e); diff != "" {
				t.Error(diff)
			}
		})
	}
	later := http.Header{"Content-Type": {"text/html"}, "Retry-After": {date}}
	_, err := newClient(t, &daemon{answers: []answer{{status: 503, header: later}}}).System(t.Context())
	if e, ok := errors.AsType[*Error](err); !ok || e.RetryAfter < 58*time.Minute || e.RetryAfter > time.Hour {
		t.Errorf("a date in an hour: %+v", err)
	}
}

func TestErrorIsAskedForByItsCode(t *testing.T) {
	err := fmt.Errorf("wrapped: %w", &Error{Code: protocol.CodeNotFound, Status: 404, Message: "m"})
	if !errors.Is(err, protocol.CodeNotFound) || !errors.Is(err, &protocol.Error{Code: protocol.CodeNotFound}) || protocol.CodeOf(err) != protocol.CodeNotFound {
		t.Error("its own code is not found in it")
	}
	if errors.Is(err, protocol.CodeConflict) || errors.Is(err, &protocol.Error{Code: protocol.CodeConflict}) {
		t.Error("another code is found in it")
	}
	if _, ok := errors.AsType[*protocol.Error](err); !ok {
		t.Error("it is no protocol.Error")
	}
}

// refused is what a daemon that is not there gives.
var refused = &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}

func TestRequestIsSentAgainWhereThatHelpsAndDoesNoHarm(t *testing.T) {
	reset := &net.OpError{Op: "read", Net: "tcp", Err: errors.New("connection reset")}
	down := problem(503, protocol.CodeShuttingDown, "")
	full := problem(429, protocol.CodeQueueFull, `,"retry_after_s":1`)
	reads := func(ctx context.Context, c *Client) error { return fails(c.System(ctx)) }
	execs := func(ctx context.Context, c *Client) error { return fails(c.Exec(ctx, "u", protocol.ExecRequest{})) }
	streams := func(ctx context.Context, c *Client) error {
		return fails(c.ExecStream(ctx, "u", protocol.ExecRequest{}, func(protocol.EventType, protocol.ExecOutput) error { return nil }))
	}
	uploads := func(ctx context.Context, c *Client) error {
		return fails(c.PutFile(ctx, "u", "p", strings.NewReader("x"), 1))
	}
	starts := func(ctx context.Context, c *Client) error {
		return fails(c.Execute(ctx, protocol.ExecuteRequest{}, ExecuteOptions{}))
	}
	for _, tt := range []struct {
		name   string
		do     func(context.Context, *Client) error
		answer answer
		want   int // requests
	}{
		{"reading, lost connection", reads, answer{err: reset}, 2},
		{"reading, answer cut short", reads, answer{header: http.Header{"Content-Type": {"application/json"}}, body: "{", bodyErr: reset}, 2},
		{"reading, daemon going down", reads, down, 2},
		{"reading, full", reads, full, 2},
		{"reading, bad gateway", reads, answer{status: 502}, 2},
		{"reading, not found", reads, problem(404, protocol.CodeNotFound, ""), 1},
		{"reading, redirect", reads, answer{status: 307}, 1},
		{"reading, foreign certificate", reads, answer{err: &tls.CertificateVerificationError{Err: errors.New("unknown authority")}}, 1},
		{"reading, no TLS there", reads, answer{err: http.ErrSchemeMismatch}, 1},
		{"reading, no money left", reads, problem(429, protocol.CodeBudgetExceeded, ""), 1},
		{"reading, a long wait", reads, problem(429, protocol.CodeRateLimited, `,"retry_after_s":3600`), 1},
		{"exec, nobody there", execs, answer{err: refused}, 2},
		{"exec, lost connection", execs, answer{err: reset}, 1},
		{"exec, daemon going down", execs, down, 1},
		{"exec, full", execs, full, 2},
		{"streamed exec, full", streams, full, 2},
		{"streamed exec, lost connection", streams, answer{err: reset}, 1},
		{"upload, full", uploads, full, 1},
		{"upload, nobody there", uploads, answer{err: refused}, 1},
		{"execute, lost connection", starts, answer{err: reset}, 2},
		{"execute, daemon going down", starts, down, 2},
		{"execute, not found", starts, problem(404, protocol.CodeNotFound, ""), 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := &daemon{answers: []answer{tt.answer, jsonAnswer("{}")}}
				if tt.name == "streamed exec, full" {
					d.answers[1] = answer{body: "event: EXIT\ndata: {}\n\n"}
				}
				err := tt.do(t.Context(), newPatientClient(t, d, 0))
				if len(d.requests) != tt.want || (err == nil) != (tt.want == 2) {
					t.Errorf("%d requests, want %d; error %v", len(d.requests), tt.want, err)
				}
			})
		})
	}
}

func TestTriesAreBounded(t *testing.T) {
	for given, want := range map[int]int{0: defaultTries, 1: 1, 3: 3} {
		synctest.Test(t, func(t *testing.T) {
			d := &daemon{answers: []answer{{err: refused}}}
			if _, err := newPatientClient(t, d, given).System(t.Context()); !errors.Is(err, refused) || len(d.requests) != want {
				t.Errorf("Tries %d: %d requests, %v", given, len(d.requests), err)
			}
		})
	}
}

func TestContextEndsTheWaitForTheNextTry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		d := &daemon{answers: []answer{problem(503, protocol.CodeShuttingDown, `,"retry_after_s":60`)}}
		_, err := newPatientClient(t, d, 0).System(ctx)
		if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, protocol.CodeShuttingDown) || len(d.requests) != 1 {
			t.Errorf("%d requests, %v", len(d.requests), err)
		}
	})
}

func TestRepeatedExecuteHasOneKeyAndAnotherCallAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &daemon{answers: []answer{{err: refused}, {status: 502}, jsonAnswer(`{"run_id":"r"}`), {err: refused}, jsonAnswer(`{"run_id":"s"}`)}}
		c := newPatientClient(t, d, 0)
		for range 2 {
			if _, err := c.Execute(t.Context(), protocol.ExecuteRequest{}, ExecuteOptions{}); err != nil {
				t.Error(err)
			}
		}
		if len(d.keys) != 5 || d.keys[0] == "" || d.keys[0] != d.keys[1] || d.keys[1] != d.keys[2] || d.keys[3] != d.keys[4] || d.keys[0] == d.keys[3] {
			t.Errorf("keys %q", d.keys)
		}
	})
}

// A daemon that runs what it is asked to, and loses its answers.
func TestRunIsStartedOnceThoughItsAnswersAreLost(t *testing.T) {
	runs := map[string]int{}
	asked := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		runs[r.Header.Get("Idempotency-Key")]++
		if asked++; asked < defaultTries {
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprint(w, `{"run_id":"r"}`)
	}))
	defer server.Close()
	c, err := New(server.URL, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	run, err := c.Execute(t.Context(), protocol.ExecuteRequest{}, ExecuteOptions{})
	if err != nil || run.RunID != "r" || len(runs) != 1 || asked != defaultTries {
		t.Errorf("%d runs by %d requests, %+v, %v", len(runs), asked, run, err)
	}
}

func TestStreamedRunIsStartedOnceAndFollowedOn(t *testing.T) {
	const start, events = "POST /v1/execute", "GET /v1/runs/r/events"
	for _, tt := range []struct {
		name     string
		answers  []answer
		want     []int64
		requests []string
	}{
		{"whole", []answer{{body: frames(1, 2, delta) + frames(3, 3, finished)}}, sequence(3), []string{start}},
		{
			"cut off",
			[]answer{{body: frames(1, 2, delta) + "id: 3", bodyErr: refused}, {body: frames(3, 3, finished)}},
			sequence(3),
			[]string{start, events + " 2"},
		},
		{
			"cut off before its first event",
			[]answer{{body: ": keep-alive\n\n", bodyErr: refused}, {err: refused}, {body: ""}, {body: frames(1, 1, delta), bodyErr: refused}, {body: frames(2, 2, finished)}},
			sequence(2),
			[]string{start, start, start, start, events + " 1"},
		},
		{"full for a while", []answer{problem(429, protocol.CodeRateLimited, ""), {body: frames(1, 1, finished)}}, sequence(1), []string{start, start}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := &daemon{answers: tt.answers}
				var got []int64
				for e, err := range newClient(t, d).ExecuteStream(t.Context(), protocol.ExecuteRequest{}, ExecuteOptions{}) {
					if err != nil {
						t.Fatal(err)
					}
					got = append(got, e.Seq)
				}
				if diff := cmp.Diff(tt.want, got); diff != "" {
					t.Error(diff)
				}
				if diff := cmp.Diff(tt.requests, d.requests); diff != "" {
					t.Error(diff)
				}
				keys := slices.DeleteFunc(d.keys, func(k string) bool { return k == "" })
				if len(slices.Compact(keys)) != 1 {
					t.Errorf("keys %q", d.keys)
				}
			})
		})
	}
}

func TestStreamedRunThatIsRefusedIsAnError(t *testing.T) {
	d := &daemon{answers: []answer{problem(400, protocol.CodeInvalidRequest, "")}}
	err := drain(newClient(t, d).ExecuteStream(t.Context(), protocol.ExecuteRequest{}, ExecuteOptions{}))
	if !errors.Is(err, protocol.CodeInvalidRequest) || len(d.requests) != 1 {
		t.Errorf("%d requests, %v", len(d.requests), err)
	}
}

func TestWaitGivesTheResultOrTheErrorOfTheRun(t *testing.T) {
	const asked = "GET /v1/runs/r/events 9223372036854775807"
	quiet := answer{body: strings.Repeat(": keep-alive!!\n\n", 8), pause: 15 * time.Second}
	ended := func(more string) answer {
		return jsonAnswer(`{"run_id":"r","status":"finished","last_seq":7,` + more + `}`)
	}
	running := jsonAnswer(`{"run_id":"r","status":"running","last_seq":7}`)
	for _, tt := range []struct {
		name     string
		answers  []answer
		want     protocol.Result
		err      *Error
		requests int
	}{
		{"result", []answer{quiet, ended(`"result":{"content":"c"}`)}, protocol.Result{Content: "c"}, nil, 2},
		{
			"error",
			[]answer{quiet, ended(`"error":{"code":"out_of_memory","message":"m"}`)},
			protocol.Result{},
			&Error{Code: protocol.CodeOutOfMemory, Status: 507, Message: "m", RunID: "r"}, 2,
		},
		{
			"lost connections",
			[]answer{{body: ": k\n\n", bodyErr: refused}, {err: refused}, quiet, running, {status: 504}, quiet, ended(`"result":{"content":"c"}`)},
			protocol.Result{Content: "c"},
			nil, 7,
		},
		{"unknown run", []answer{problem(404, protocol.CodeNotFound, "")}, protocol.Result{}, &Error{Code: protocol.CodeNotFound, Status: 404, Message: "d"}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := &daemon{answers: tt.answers}
				got, err := newClient(t, d).Wait(t.Context(), "r")
				e, _ := errors.AsType[*Error](err)
				if diff := cmp.Diff(tt.want, got) + cmp.Diff(tt.err, e); diff != "" || (err == nil) != (tt.err == nil) {
					t.Error(err, diff)
				}
				if len(d.requests) != tt.requests || d.requests[0] != asked || d.queries[0].Get("after") != "9223372036854775807" {
					t.Errorf("requests %q %v", d.requests, d.queries)
				}
			})
		})
	}
	// No number is beyond the largest, not even the smallest.
	for _, seq := range []string{"-9223372036854775808", "9223372036854775807", "1"} {
		d := &daemon{answers: []answer{{body: strings.ReplaceAll(frames(1, 1, delta), "1", seq)}}}
		if _, err := newClient(t, d).Wait(t.Context(), "r"); !errors.Is(err, ErrBrokenStream) {
			t.Errorf("event %s while waiting: %v", seq, err)
		}
	}
}

// A proxy cuts every connection of a run that has nothing to tell for an hour.
func TestQuietRunIsNotGivenUpWhileTheDaemonIsHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cut := answer{body: strings.Repeat(": keep-alive!!\n\n", 3), pause: 15 * time.Second, bodyErr: refused}
		d := &daemon{answers: append(slices.Repeat([]answer{cut}, 60), answer{body: frames(1, 1, finished)})}
		if got, err := collect(t.Context(), newClient(t, d), 0); err != nil || len(got) != 1 {
			t.Errorf("%d events, %d requests, %v", len(got), len(d.requests), err)
		}
	})
}

// One that says a word and hangs up at once is no daemon to wait for.
func TestDaemonThatHangsUpAtOnceIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &daemon{answers: []answer{{body: ": hello\n\n", bodyErr: refused}}}
		if _, err := collect(t.Context(), newClient(t, d), 0); err == nil || len(d.requests) != maxTries {
			t.Errorf("%d requests, %v", len(d.requests), err)
		}
	})
}

func TestPagesAreReadAsTheyAreNeeded(t *testing.T) {
	page := func(more string) answer {
		return jsonAnswer(`{"runs":[{"run_id":"a"},{"run_id":"b"}]` + more + `}`)
	}
	d := &daemon{answers: []answer{page(`,"next_cursor":"2"`), page(""), page("")}}
	c := newClient(t, d)
	n := 0
	for _, err := range c.Runs(t.Context(), protocol.RunQuery{UserID: "u", Limit: 2}) {
		if n++; err != nil {
			t.Fatal(err)
		}
		if n == 3 {
			break
		}
	}
	if len(d.requests) != 2 || d.queries[0].Encode() != "limit=2&user_id=u" || d.queries[1].Encode() != "cursor=2&limit=2&user_id=u" {
		t.Errorf("after 3 runs: %v", d.queries)
	}

	d = &daemon{answers: []answer{page(`,"next_cursor":"2"`), problem(404, protocol.CodeNotFound, "")}}
	var errs []error
	for _, err := range newClient(t, d).Runs(t.Context(), protocol.RunQuery{}) {
		errs = append(errs, err)
	}
	if len(errs) != 3 || errs[1] != nil || !errors.Is(errs[2], protocol.CodeNotFound) {
		t.Errorf("an error on the second page: %v", errs)
	}

	d = &daemon{answers: []answer{page(`,"next_cursor":"2"`)}}
	if err := drain(newClient(t, d).Runs(t.Context(), protocol.RunQuery{})); err == nil || len(d.requests) != 2 {
		t.Errorf("a page that leads to itself: %d requests, %v", len(d.requests), err)
	}
}
