package httpapi

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"carrel/protocol"
)

const goodBody = `{"user_id":"u","message":"m"}`

func TestExecuteStreamsTheRunsEvents(t *testing.T) {
	w := ask(t, New(newFake(), Options{}), http.MethodPost, executePath, goodBody, "Accept: text/event-stream")
	want := `id: 1
event: RUN_STARTED
data: {"run_id":"run_1","seq":1,"time":"2026-01-02T03:04:05.6789Z","type":"RUN_STARTED","data":{"session_id":"s","agent":"shell"}}

id: 2
event: TEXT_DELTA
data: {"run_id":"run_1","seq":2,"time":"2026-01-02T03:04:05.6789Z","type":"TEXT_DELTA","data":{"text":"hi\n\u003cb\u003e"}}

id: 3
event: RUN_FINISHED
data: {"run_id":"run_1","seq":3,"time":"2026-01-02T03:04:05.6789Z","type":"RUN_FINISHED","data":` + finishedData + `}

`
	if diff := cmp.Diff(want, w.Body.String()); diff != "" {
		t.Error(diff)
	}
	for name, want := range map[string]string{
		"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no", "Location": "/v1/runs/run_1",
	} {
		if got := w.Header().Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

const finishedData = `{"run_id":"run_1","session_id":"s","status":"finished","content":"hi","tool_calls":[],"tokens_used":0,` +
	`"usage":{"input_tokens":0,"output_tokens":0,"cache_read_tokens":0,"cache_creation_tokens":0,"cost_usd":0},"duration":0,"stop_reason":""}`

func TestExecuteWaitsAndAnswersTheResult(t *testing.T) {
	for _, accept := range []string{"application/json", "*/*", ""} {
		w := ask(t, New(newFake(), Options{}), http.MethodPost, executePath, goodBody, "Accept: "+accept)
		if diff := cmp.Diff(finishedData+"\n", w.Body.String()); w.Code != 200 || diff != "" {
			t.Errorf("Accept %q: %d %s", accept, w.Code, diff)
		}
	}
}

func TestFailedRunAnswersItsWaitingCallerWithAProblem(t *testing.T) {
	for status, code := range map[int]protocol.Code{
		502: protocol.CodeWorkerCrashed, 504: protocol.CodeRunTimeout, 507: protocol.CodeOutOfMemory,
		499: protocol.CodeCanceled, 503: protocol.CodeInterrupted,
	} {
		f := newFake()
		f.onExecute = func(f *fakeService, run *protocol.Run) {
			f.emit(run.RunID, protocol.EventRunError, protocol.RunError{Code: code, Message: "it broke"})
		}
		w := ask(t, New(f, Options{}), http.MethodPost, executePath, goodBody)
		p := problem(t, w)
		if p.Status != status || p.Code != code || p.Detail != "it broke" || p.RunID != "run_1" || w.Header().Get("Location") != "/v1/runs/run_1" {
			t.Errorf("%s: %+v", code, p)
		}
	}
}

func TestExecuteAnswersAtOnceIfAsked(t *testing.T) {
	f := newFake()
	f.onExecute = func(*fakeService, *protocol.Run) {} // the run goes on
	for _, headers := range [][]string{
		{"Prefer: respond-async"},
		{"Prefer: respond-async, wait=10", "Accept: text/event-stream"},
		{"Prefer: handling=lenient", "Prefer: Respond-Async;x=1"},
	} {
		w := ask(t, New(f, Options{}), http.MethodPost, executePath, goodBody, headers...)
		run := decodeAs[protocol.Run](t, w)
		if w.Code != http.StatusAccepted || w.Header().Get("Location") != "/v1/runs/"+run.RunID || run.Status != protocol.StatusRunning {
			t.Errorf("%v: %d %v %+v", headers, w.Code, w.Header(), run)
		}
	}
}

func TestSameIdempotencyKeyAnswersWithTheSameRun(t *testing.T) {
	f := newFake()
	h := New(f, Options{})
	var bodies []string
	for i := range 3 {
		w := ask(t, h, http.MethodPost, executePath, goodBody, "Idempotency-Key: k")
		if replayed := w.Header().Get("Idempotent-Replayed") == "true"; replayed != (i > 0) {
			t.Errorf("answer %d: replayed is %v", i, replayed)
		}
		bodies = append(bodies, w.Body.String())
	}
	if len(f.runs) != 1 || bodies[0] != bodies[1] || bodies[1] != bodies[2] {
		t.Errorf("%d runs, answers %q", len(f.runs), bodies)
	}
}

func TestClientThatLeavesDoesNotStopItsRun(t *testing.T) {
	for _, accept := range []string{"text/event-stream", "application/json"} {
		t.Run(accept, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake()
				f.onExecute = func(*fakeService, *protocol.Run) {}
				l, stop := servePipes(t, New(f, Options{}))
				c := connect(t, l, "POST /v1/execute HTTP/1.1\r\nAccept: "+accept+"\r\nContent-Length: 29")
				if _, err := io.WriteString(c, goodBody); err != nil {
					t.Fatal(err)
				}
				if accept != "application/json" {
					if head, err := c.r.ReadString('\n'); err != nil || head != "HTTP/1.1 200 OK\r\n" {
						t.Fatalf("headers are not sent at once: %q %v", head, err)
					}
				}
				synctest.Wait()
				if f.openReaders() != 1 {
					t.Fatal("nobody waits for the run")
				}
				c.Close()
				synctest.Wait()
				if n := f.openReaders(); n != 0 {
					t.Errorf("%d readers are left", n)
				}
				if run, err := f.Run(t.Context(), "run_1"); err != nil || run.Status != protocol.StatusRunning {
					t.Errorf("the run is %s, %v", run.Status, err)
				}
				stop()
			})
		})
	}
}

func TestReplayBeginsAfterTheGivenEvent(t *testing.T) {
	f := newFake()
	h := New(f, Options{})
	ask(t, h, http.MethodPost, executePath, goodBody)
	for _, tt := range []struct {
		query, header, want string
	}{
		{"", "", "123"},
		{"?after=0", "", "123"},
		{"?after=1", "", "23"},
		{"", "Last-Event-ID: 2", "3"},
		{"?after=1", "Last-Event-ID: 2", "3"}, // the header is the newer
		{"?after=3", "", ""},
		{"?after=9223372036854775807", "", ""},
	} {
		var headers []string
		if tt.header != "" {
			headers = append(headers, tt.header)
		}
		w := ask(t, h, http.MethodGet, "/v1/runs/run_1/events"+tt.query, "", headers...)
		got := ""
		for line := range strings.Lines(w.Body.String()) {
			if id, ok := strings.CutPrefix(line, "id: "); ok {
				got += strings.TrimSpace(id)
			}
		}
		if w.Code != 200 || got != tt.want {
			t.Errorf("%q %q: %d, events %q, want %q", tt.query, tt.header, w.Code, got, tt.want)
		}
	}
	if w := ask(t, h, http.MethodGet, "/v1/runs/nope/events", ""); problem(t, w).Code != protocol.CodeNotFound {
		t.Errorf("unknown run: %d", w.Code)
	}
	if n := f.openReaders(); n != 0 {
		t.Errorf("%d readers are left", n)
	}
}

func TestHeadOfAnEventStreamDoesNotWaitForEvents(t *testing.T) {
	f := newFake()
	id := f.add("u")
	w := ask(t, New(f, Options{}), http.MethodHead, "/v1/runs/"+id+"/events", "")
	if w.Code != 200 || w.Header().Get("Content-Type") != "text/event-stream" || w.Body.Len() > 0 {
		t.Errorf("got %d %v %q", w.Code, w.Header(), w.Body)
	}
}

func TestExecAnswersInTheFormAskedFor(t *testing.T) {
	f := newFake()
	f.onExec = func(_ context.Context, _ string, _ protocol.ExecRequest, sink ExecSink) (protocol.ExecResult, error) {
		if sink != nil {
			err := errors.Join(
				sink(protocol.ExecStdout, protocol.ExecOutput{Text: "a\nid: 7\n\nevent: EXIT\r"}),
				sink(protocol.ExecStderr, protocol.ExecOutput{Text: "b"}),
			)
			if err != nil {
				return protocol.ExecResult{}, err
			}
		}
		return protocol.ExecResult{ExitCode: 3, Stdout: "a", Stderr: "b", DurationMS: 5}, nil
	}
	h := New(f, Options{})
	w := ask(t, h, http.MethodPost, execPath, `{"command":["a"]}`)
	if got := w.Body.String(); got != `{"exit_code":3,"stdout":"a","stderr":"b","truncated":false,"duration_ms":5}`+"\n" {
		t.Errorf("JSON: %s", got)
	}
	w = ask(t, h, http.MethodPost, execPath, `{"command":["a"]}`, "Accept: text/event-stream")
	want := `event: STDOUT
data: {"text":"a\nid: 7\n\nevent: EXIT\r"}

event: STDERR
data: {"text":"b"}

event: EXIT
data: {"exit_code":3,"stdout":"","stderr":"","truncated":false,"duration_ms":5}

`
	if diff := cmp.Diff(want, w.Body.String()); diff != "" {
		t.Error(diff)
	}
}

func TestCommandThatNeverStartedIsAProblemEvenWhenStreamed(t *testing.T) {
	f := newFake()
	f.onExec = func(context.Context, string, protocol.ExecRequest, ExecSink) (protocol.ExecResult, error) {
		return protocol.ExecResult{}, &protocol.Error{Code: protocol.CodeQueueFull, Message: "full", RetryAfter: time.Second}
	}
	w := ask(t, New(f, Options{}), http.MethodPost, execPath, `{"command":["a"]}`, "Accept: text/event-stream")
	if p := problem(t, w); p.Code != protocol.CodeQueueFull || w.Header().Get("Retry-After") != "1" {
		t.Errorf("got %+v", p)
	}
}

func TestDecisionOnAnApproval(t *testing.T) {
	f := newFake()
	h := New(f, Options{})
	id := f.add("u")
	tests := []struct {
		name, path, body string
		status           int
		code             protocol.Code
	}{
		{name: "allowed", path: id + "/approvals/apr_1", body: `{"decision":"allow"}`, status: 200},
		{name: "denied for a reason", path: id + "/approvals/apr_1", body: `{"decision":"deny","reason":"no"}`, status: 200},
		{name: "neither", path: id + "/approvals/apr_1", body: `{"decision":"maybe"}`, status: 400, code: protocol.CodeInvalidRequest},
		{name: "nothing", path: id + "/approvals/apr_1", body: `{}`, status: 400, code: protocol.CodeInvalidRequest},
		{name: "an unknown field", path: id + "/approvals/apr_1", body: `{"decision":"allow","for":"all"}`, status: 400, code: protocol.CodeInvalidRequest},
		{name: "a long reason", path: id + "/approvals/apr_1", body: `{"decision":"deny","reason":"` + strings.Repeat("x", 5000) + `"}`, status: 413, code: protocol.CodeTooLarge},
		{name: "an unknown approval", path: id + "/approvals/apr_2", body: `{"decision":"allow"}`, status: 404, code: protocol.CodeNotFound},
		{name: "an unknown run", path: "run_none/approvals/apr_1", body: `{"decision":"allow"}`, status: 404, code: protocol.CodeNotFound},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := ask(t, h, "POST", "/v1/runs/"+test.path, test.body)
			var told struct {
				Code       protocol.Code `json:"code"`
				ApprovalID string        `json:"approval_id"`
			}
			if err := json.Unmarshal(w.Body.Bytes(), &told); err != nil {
				t.Fatal(err)
			}
			if w.Code != test.status || told.Code != test.code || (test.status == 200) != (told.ApprovalID == "apr_1") {
				t.Errorf("status %d: %s", w.Code, w.Body)
			}
		})
	}
	if len(f.decided) != 2 || f.decided[1].Reason != "no" {
		t.Errorf("decided: %+v", f.decided)
	}
}
