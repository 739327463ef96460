package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"carrel/protocol"
)

// ask sends one request to a handler, and holds the answer against the OpenAPI
// document. headers are "Name: value".
func ask(t *testing.T, h http.Handler, method, target, body string, headers ...string) *httptest.ResponseRecorder {
	t.Helper()
	r, w := send(t, h, method, target, body, headers...)
	checkDocumented(t, r, body, w)
	return w
}

// send is ask for what no daemon answers.
func send(t *testing.T, h http.Handler, method, target, body string, headers ...string) (*http.Request, *httptest.ResponseRecorder) {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, target, strings.NewReader(body))
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		r.Header.Add(name, value)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return r, w
}

func decodeAs[T any](t *testing.T, w *httptest.ResponseRecorder) T {
	t.Helper()
	var v T
	if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil {
		t.Fatalf("answer %d %q: %v", w.Code, w.Body, err)
	}
	return v
}

// problem checks that w is a problem document and returns it.
func problem(t *testing.T, w *httptest.ResponseRecorder) protocol.Problem {
	t.Helper()
	if got := w.Header().Get("Content-Type"); got != protocol.ProblemMediaType {
		t.Fatalf("Content-Type %q, answer %d %s", got, w.Code, w.Body)
	}
	p := decodeAs[protocol.Problem](t, w)
	if p.Status != w.Code || p.Type != "about:blank" || p.Title == "" || p.Detail == "" {
		t.Errorf("status %d with incomplete problem %+v", w.Code, p)
	}
	return p
}

func TestLoopbackListenerAnswersOnlyToLoopbackNames(t *testing.T) {
	guarded := New(newFake(), Options{Loopback: true})
	for host, allowed := range map[string]bool{
		"localhost": true, "LOCALHOST:1": true, "127.0.0.1": true, "127.0.0.1:8642": true,
		"127.255.3.4:80": true, "[::1]": true, "[::1]:8642": true, "[0:0:0:0:0:0:0:1]:1": true,
		"": false, "evil.example": false, "evil.example:8642": false, "localhost.evil.example": false,
		"127.0.0.1.evil.example": false, "128.0.0.1": false, "0.0.0.0": false, "10.0.0.1:8642": false,
		"[::]": false, "[::ffff:127.0.0.1]": false, "[127.0.0.1]": false, "::1": false, "[::1": false,
		"localhost:80:80": false, "localhost:x": false, "127.1": false, "0x7f.0.0.1": false, "2130706433": false,
	} {
		t.Run(host, func(t *testing.T) {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/v1/system", nil)
			r.Host = host
			w := httptest.NewRecorder()
			guarded.ServeHTTP(w, r)
			if allowed != (w.Code == http.StatusOK) {
				t.Errorf("status %d, allowed should be %v", w.Code, allowed)
			}
			if !allowed && problem(t, w).Code != protocol.CodeForbidden {
				t.Error("refused with another code than forbidden")
			}
			open := httptest.NewRecorder()
			New(newFake(), Options{}).ServeHTTP(open, r)
			if open.Code != http.StatusOK {
				t.Errorf("without Loopback: status %d", open.Code)
			}
		})
	}
}

func TestForeignPageCannotChangeAnythingOnLoopback(t *testing.T) {
	h := New(newFake(), Options{Loopback: true})
	const target, body = "http://127.0.0.1:8642/v1/execute", `{"user_id":"u","message":"m"}`
	for _, headers := range [][]string{
		{"Sec-Fetch-Site: cross-site"},
		{"Origin: http://evil.example"},
		{"Origin: null"},
	} {
		if w := ask(t, h, http.MethodPost, target, body, headers...); w.Code != http.StatusForbidden {
			t.Errorf("%v: status %d", headers, w.Code)
		}
	}
	if w := ask(t, h, http.MethodPost, target, body); w.Code != http.StatusOK {
		t.Errorf("a program's own request: status %d", w.Code)
	}
}

func TestErrorsOfTheServiceBecomeProblems(t *testing.T) {
	for _, tt := range []struct {
		name string
		err  error
		want protocol.Problem
		wait string
	}{
		{
			name: "coded", err: fmt.Errorf("pool: %w", protocol.Errorf(protocol.CodeIsolationUnavailable, "no Landlock")),
			want: protocol.Problem{Title: "Service Unavailable", Status: 503, Detail: "no Landlock", Code: protocol.CodeIsolationUnavailable},
		},
		{
			name: "with a time to wait", err: &protocol.Error{Code: protocol.CodeQueueFull, Message: "full", RetryAfter: 1500 * time.Millisecond},
			want: protocol.Problem{Title: "Too Many Requests", Status: 429, Detail: "full", Code: protocol.CodeQueueFull, RetryAfter: 1.5},
			wait: "2",
		},
		{
			name: "without a code", err: errors.New("open /secret/path: denied"),
			want: protocol.Problem{
				Title: "Internal Server Error", Status: 500, Code: protocol.CodeInternal,
				Detail: "an error of the daemon's own; its log tells more under the X-Request-Id of this answer",
			},
		},
		{
			name: "given up", err: context.Canceled,
			want: protocol.Problem{Title: "Client Closed Request", Status: 499, Detail: "the request was given up", Code: protocol.CodeCanceled},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.want.Type = "about:blank"
			h := New(&fakeService{failure: tt.err}, Options{})
			for _, path := range []string{"/v1/runs", "/v1/runs/r", "/v1/sandboxes", "/v1/users/u/sandbox", "/v1/system"} {
				_, w := send(t, h, http.MethodGet, path, "") // of any path, any code
				if diff := cmp.Diff(tt.want, problem(t, w)); diff != "" {
					t.Errorf("%s: %s", path, diff)
				}
				if got := w.Header().Get("Retry-After"); got != tt.wait {
					t.Errorf("Retry-After %q, want %q", got, tt.wait)
				}
			}
		})
	}
}

func TestPanicIsAnsweredLoggedAndSurvived(t *testing.T) {
	var log bytes.Buffer
	f := newFake()
	f.onExec = func(_ context.Context, _ string, req protocol.ExecRequest, sink ExecSink) (protocol.ExecResult, error) {
		if sink != nil {
			if err := sink(protocol.ExecStdout, protocol.ExecOutput{Text: "x"}); err != nil {
				t.Error(err)
			}
		}
		panic("boom")
	}
	h := New(f, Options{Logger: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	w := ask(t, h, http.MethodPost, "/v1/users/u/exec", `{"command":"secret message"}`)
	if p := problem(t, w); p.Code != protocol.CodeInternal || strings.Contains(p.Detail, "boom") {
		t.Errorf("answer %+v", p)
	}
	for _, want := range []string{"boom", "handler_test.go", w.Header().Get("X-Request-Id"), "level=ERROR msg=request", "status=500"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log lacks %q:\n%s", want, log.String())
		}
	}
	if strings.Contains(log.String(), "secret message") {
		t.Error("the log holds the body")
	}

	server := httptest.NewServer(h)
	defer server.Close()
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	resp, err := server.Client().Do(request(t, http.MethodPost, server.URL+"/v1/users/u/exec", `{"command":"x"}`, "Accept: text/event-stream"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := new(bytes.Buffer).ReadFrom(resp.Body); err == nil {
		t.Error("an answer that a panic cut short has a proper end")
	}
}

func request(t *testing.T, method, target, body string, headers ...string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, target, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		r.Header.Add(name, value)
	}
	return r
}

func TestReadyzIs503WhateverTheReason(t *testing.T) {
	for _, err := range []error{protocol.Errorf(protocol.CodeShuttingDown, "bye"), protocol.Errorf(protocol.CodeQueueFull, "full"), errors.New("x")} {
		_, w := send(t, New(&fakeService{readyErr: err}, Options{}), http.MethodGet, "/readyz", "")
		if problem(t, w).Status != 503 {
			t.Errorf("%v: status %d", err, w.Code)
		}
	}
}

func TestCancelTellsWhetherTheRunHasEnded(t *testing.T) {
	f := newFake()
	h := New(f, Options{})
	id, stubborn := f.add("u"), f.add("stubborn")
	for range 2 { // idempotent
		w := ask(t, h, http.MethodPost, "/v1/runs/"+id+"/cancel", "")
		if run := decodeAs[protocol.Run](t, w); w.Code != 200 || run.Status != protocol.StatusCanceled {
			t.Errorf("ended at once: %d %s", w.Code, run.Status)
		}
	}
	w := ask(t, h, http.MethodPost, "/v1/runs/"+stubborn+"/cancel", "")
	if run := decodeAs[protocol.Run](t, w); w.Code != 202 || run.Status != protocol.StatusRunning {
		t.Errorf("still ending: %d %s", w.Code, run.Status)
	}
	if w := ask(t, h, http.MethodPost, "/v1/runs/nope/cancel", ""); problem(t, w).Code != protocol.CodeNotFound {
		t.Errorf("unknown run: %d", w.Code)
	}
}

func TestPurgeIsPassedOnOnlyIfSaid(t *testing.T) {
	f := newFake()
	h := New(f, Options{})
	for _, query := range []string{"", "?purge=false", "?purge=true"} {
		if w := ask(t, h, http.MethodDelete, "/v1/users/u/sandbox"+query, ""); w.Code != http.StatusNoContent {
			t.Errorf("%q: status %d", query, w.Code)
		}
	}
	if diff := cmp.Diff([]bool{false, false, true}, f.purged); diff != "" {
		t.Error(diff)
	}
}
