package httpapi

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"carrel/internal/agui"
	"carrel/protocol"
)

const aguiPath = "/v1/ag-ui"

// aguiBody is a RunAgentInput of the thread "s" with these members besides.
func aguiBody(messages, more string) string {
	return `{"threadId":"s","runId":"r","tools":[],"context":[],"state":{},"forwardedProps":{},"messages":[` + messages + `]` + more + `}`
}

const aguiUser = `{"id":"1","role":"user","content":"hi"}`

func aguiResume(entries ...string) string {
	return aguiBody(aguiUser+`,{"id":"2","role":"assistant"}`, `,"resume":[`+strings.Join(entries, ",")+`]`)
}

func allows(id string) string {
	return `{"interruptId":"` + id + `","status":"resolved","payload":{"approved":true}}`
}

// aguiEvents reads a whole answer.
func aguiEvents(t *testing.T, w *httptest.ResponseRecorder) (events []agui.Event) {
	t.Helper()
	if w.Code != 200 || w.Header().Get("Content-Type") != "text/event-stream" {
		t.Fatalf("the answer is %d %s", w.Code, w.Body)
	}
	for frame := range strings.SplitSeq(strings.TrimSuffix(w.Body.String(), "\n\n"), "\n\n") {
		data, ok := strings.CutPrefix(frame, "data: ")
		var e agui.Event
		if err := json.Unmarshal([]byte(data), &e); err != nil || !ok {
			t.Fatalf("no frame: %q", frame)
		}
		events = append(events, e)
	}
	return events
}

func typesOf(events []agui.Event) (types []string) {
	for _, e := range events {
		types = append(types, e.Type)
	}
	return types
}

// asks makes a run that has asked, and goes on as a person answers.
func asks(f *fakeService, user string, approvals ...string) (id string) {
	id = f.add(user)
	f.emit(id, protocol.EventRunStarted, protocol.RunStarted{SessionID: "s"})
	f.emit(id, protocol.EventToolCallStart, protocol.ToolCallStart{ID: "t", Name: "bash"})
	for _, approval := range approvals {
		f.emit(id, protocol.EventApprovalRequested, protocol.ApprovalRequested{ApprovalID: approval, ToolCallID: "t", Tool: "bash"})
	}
	return id
}

// goesOn ends a run whose question was answered.
func goesOn(f *fakeService, id, approval string) {
	f.emit(id, protocol.EventApprovalResolved, protocol.ApprovalResolved{ApprovalID: approval, Decision: protocol.Allow})
	f.emit(id, protocol.EventToolCallResult, protocol.ToolCallResult{ID: "t", Result: "done"})
	f.emit(id, protocol.EventRunFinished, result(id, "done"))
}

func askAGUI(t *testing.T, f *fakeService, body string) *httptest.ResponseRecorder {
	t.Helper()
	return ask(t, New(f, Options{}), http.MethodPost, aguiPath, body, "X-Carrel-User: ana", "Accept: text/event-stream")
}

func TestAGUIMessageIsRunForItsUserAndShown(t *testing.T) {
	f := newFake()
	w := askAGUI(t, f, aguiBody(aguiUser, ""))
	events := aguiEvents(t, w)
	want := []string{agui.RunStarted, agui.TextMessageStart, agui.TextMessageContent, agui.TextMessageEnd, agui.RunFinished}
	if diff := cmp.Diff(want, typesOf(events)); diff != "" {
		t.Error(diff)
	}
	if got := w.Header().Get("Location"); got != "/v1/runs/run_1" {
		t.Errorf("Location is %q", got)
	}
	if events[0].RunID != "r" || events[0].ThreadID != "s" || events[2].Delta != "hi\n<b>" || events[4].Outcome.Type != agui.Success {
		t.Errorf("the events are %+v", events)
	}
	s := f.submissions[0]
	if s.Request.UserID != "ana" || s.Request.SessionID != "s" || s.Request.Message != "hi" || s.Caller != LocalCaller || !strings.HasPrefix(s.IdempotencyKey, "ag-ui:") {
		t.Errorf("submitted: %+v", s)
	}
}

func TestAGUIConfigIsThatOfExecute(t *testing.T) {
	f := newFake()
	body := strings.Replace(aguiBody(aguiUser, ""), `"forwardedProps":{}`, `"forwardedProps":{"carrel":{"config":{"model":"m","permission_mode":"plan"}},"other":1}`, 1)
	if w := askAGUI(t, f, body); w.Code != 200 {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	if diff := cmp.Diff(protocol.RunConfig{Model: "m", PermissionMode: "plan"}, f.submissions[0].Request.Config); diff != "" {
		t.Error(diff)
	}
}

// A message is run once, however often it is sent, unless its run failed.
func TestAGUIMessageThatIsSentAgainIsShownAgain(t *testing.T) {
	f := newFake()
	first := askAGUI(t, f, aguiBody(aguiUser, ""))
	again := askAGUI(t, f, aguiBody(aguiUser, ""))
	if len(f.submissions) != 1 || first.Body.String() != again.Body.String() {
		t.Errorf("%d runs; shown %s and %s", len(f.submissions), first.Body, again.Body)
	}
	stale := aguiEvents(t, askAGUI(t, f, aguiBody(aguiUser+`,{"id":"run_1-1","role":"assistant","content":"h"}`, "")))
	if len(f.submissions) != 1 || stale[1].Type != agui.MessagesSnapshot || len(stale[1].Messages) != 1 || string(stale[1].Messages[0]) != aguiUser {
		t.Errorf("with a part of the answer: %d runs, %+v", len(f.submissions), stale[1])
	}
	if w := ask(t, New(f, Options{}), http.MethodPost, aguiPath, aguiBody(aguiUser, ""), "X-Carrel-User: bob"); w.Code != 200 || len(f.submissions) != 2 {
		t.Errorf("another user's same message: %d, %d runs", w.Code, len(f.submissions))
	}

	failing := newFake()
	failing.onExecute = func(f *fakeService, run *protocol.Run) {
		f.emit(run.RunID, protocol.EventRunError, protocol.RunError{Code: protocol.CodeAgentError, Message: "broken"})
	}
	for n := range 3 {
		events := aguiEvents(t, askAGUI(t, failing, aguiBody(aguiUser, "")))
		if end := events[len(events)-1]; end.Type != agui.RunError || end.Code != protocol.CodeAgentError || len(failing.submissions) != n+1 {
			t.Errorf("it ends with %+v after %d runs", end, len(failing.submissions))
		}
	}
	askAGUI(t, failing, aguiBody(aguiUser+`,{"id":"2","role":"assistant"}`, ""))
	if len(failing.submissions) != 3 {
		t.Errorf("who has a part of a failed answer ran it again")
	}
}

func TestAGUIQuestionsAskedTogetherAreOneInterrupt(t *testing.T) {
	f := newFake()
	f.onExecute = func(f *fakeService, run *protocol.Run) {
		f.emit(run.RunID, protocol.EventToolCallStart, protocol.ToolCallStart{ID: "t", Name: "bash"})
		for _, id := range []string{"apr_1", "apr_2"} {
			f.emit(run.RunID, protocol.EventApprovalRequested, protocol.ApprovalRequested{ApprovalID: id, ToolCallID: "t"})
		}
		f.emit(run.RunID, protocol.EventToolOutput, protocol.ToolOutput{ID: "t", Text: "of a call beside it"})
	}
	events := aguiEvents(t, askAGUI(t, f, aguiBody(aguiUser, "")))
	want := []string{agui.RunStarted, agui.ToolCallStart, agui.ToolCallEnd, agui.RunFinished}
	if diff := cmp.Diff(want, typesOf(events)); diff != "" {
		t.Error(diff)
	}
	outcome := events[3].Outcome
	if outcome.Type != agui.Interrupted || len(outcome.Interrupts) != 2 || outcome.Interrupts[1].ID != "run_1.apr_2" {
		t.Errorf("the outcome is %+v", outcome)
	}
	f.onApprove = func(id, approval string) error {
		if approval == "apr_2" {
			goesOn(f, id, "apr_1")
		}
		return nil
	}
	rest := aguiEvents(t, askAGUI(t, f, aguiResume(allows("run_1.apr_1"), `{"interruptId":"run_1.apr_2","status":"cancelled"}`)))
	want = []string{agui.RunStarted, agui.Custom, agui.Custom, agui.ToolCallResult, agui.RunFinished}
	if diff := cmp.Diff(want, typesOf(rest)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{protocol.Allow, protocol.Deny}, []string{f.decided[0].Decision, f.decided[1].Decision}); diff != "" {
		t.Error(diff)
	}
}

func TestAGUIQuestionThatSomebodyElseAnswersMeanwhileIsNoInterrupt(t *testing.T) {
	f := newFake()
	f.onExecute = func(f *fakeService, run *protocol.Run) {
		f.emit(run.RunID, protocol.EventApprovalRequested, protocol.ApprovalRequested{ApprovalID: "apr_1"})
		goesOn(f, run.RunID, "apr_1")
	}
	events := aguiEvents(t, askAGUI(t, f, aguiBody(aguiUser, "")))
	if end := events[len(events)-1]; end.Outcome.Type != agui.Success {
		t.Errorf("it ends with %+v", end)
	}
}

// An answer that comes too late is no error: the events tell what became of it.
func TestAGUIAnswerThatComesTooLateShowsWhatBecameOfIt(t *testing.T) {
	for _, code := range []protocol.Code{protocol.CodeNotFound, protocol.CodeConflict} {
		f := newFake()
		id := asks(f, "ana", "apr_1")
		f.emit(id, protocol.EventApprovalResolved, protocol.ApprovalResolved{ApprovalID: "apr_1", Decision: protocol.Deny, Reason: "nobody answered"})
		f.emit(id, protocol.EventRunError, protocol.RunError{Code: protocol.CodeInterrupted, Message: "the daemon ended"})
		f.onApprove = func(string, string) error { return protocol.Errorf(code, "it is over") }
		events := aguiEvents(t, askAGUI(t, f, aguiResume(allows(id+".apr_1"))))
		if diff := cmp.Diff([]string{agui.RunStarted, agui.Custom, agui.RunError}, typesOf(events)); diff != "" {
			t.Error(diff)
		}
		if value := fmt.Sprint(events[1].Value); !strings.Contains(value, "deny") || !strings.Contains(value, "nobody answered") {
			t.Errorf("it tells %s", value)
		}
	}
}

func TestAGUIForeignInterruptCannotBeToldFromNone(t *testing.T) {
	f := newFake()
	ana, bob := asks(f, "ana", "apr_1"), asks(f, "bob", "apr_1")
	elsewhere := asks(f, "ana", "apr_1")
	f.runs[elsewhere].run.SessionID = "another"
	none := askAGUI(t, f, aguiResume(allows("run_0.apr_1")))
	for _, id := range []string{bob + ".apr_1", elsewhere + ".apr_1", ana + ".apr_2", ana, "apr_1", "." + ana, "", ana + "."} {
		w := askAGUI(t, f, aguiResume(allows(id)))
		if id == "" {
			if w.Code != 400 {
				t.Errorf("an empty id: %d", w.Code)
			}
			continue
		}
		if p := problem(t, w); p.Status != 404 || w.Body.String() != none.Body.String() {
			t.Errorf("%q: %d %s, and for none %s", id, w.Code, w.Body, none.Body)
		}
	}
	if len(f.decided) > 0 {
		t.Errorf("decided: %+v", f.decided)
	}
	// Beside a good one they are left out, and that is told.
	f.onApprove = func(id, approval string) error { goesOn(f, id, approval); return nil }
	w := askAGUI(t, f, aguiResume(allows(bob+".apr_1"), allows(ana+".apr_1")))
	if !strings.Contains(w.Body.String(), `"ignored":["resume[0]"]`) || len(f.decided) != 1 {
		t.Errorf("%d %s; decided %+v", w.Code, w.Body, f.decided)
	}
}

func TestAGUIRequestsThatCannotBeServedAreProblems(t *testing.T) {
	for _, tt := range []struct {
		name, body string
		headers    []string
		status     int
		detail     string
		prepare    func(*fakeService)
	}{
		{name: "no body", body: "", status: 400, detail: "body"},
		{name: "another form of answer", body: aguiBody(aguiUser, ""), headers: []string{"Accept: application/json"}, status: 406, detail: "text/event-stream"},
		{name: "no wish for a form of answer", body: aguiBody(aguiUser, ""), headers: []string{"Content-Type: application/json"}, status: 200},
		{name: "no UTF-8", body: aguiBody("\"\xff\"", ""), status: 400, detail: "no UTF-8"},
		{name: "half a surrogate", body: aguiBody(`{"id":"1","role":"user","content":"\ud800"}`, ""), status: 400, detail: "surrogate"},
		{name: "another type", body: aguiBody(aguiUser, ""), headers: []string{"Content-Type: text/plain"}, status: 415},
		{name: "too large", body: strings.Repeat(" ", maxAGUIBytes+1), status: 413},
		{name: "no message", body: aguiBody("", ""), status: 400, detail: "there is no user's message"},
		{name: "an empty message", body: aguiBody(`{"id":"1","role":"user","content":""}`, ""), status: 400, detail: "message: must not be empty"},
		{name: "an answer of no known message", body: aguiBody(aguiUser+`,{"id":"2","role":"assistant"}`, ""), status: 400, detail: "messages: the last must be the user's"},
		{name: "a long message", body: aguiBody(`{"id":"1","role":"user","content":"`+strings.Repeat("x", protocol.MaxMessageBytes+1)+`"}`, ""), status: 413, detail: "message"},
		{name: "a config that nobody knows", body: strings.Replace(aguiBody(aguiUser, ""), `"forwardedProps":{}`, `"forwardedProps":{"carrel":{"config":{"modle":"m"}}}`, 1), status: 400, detail: `forwardedProps.carrel: unknown field "config.modle"; did you mean "config.model"?`},
		{name: "a config that is none", body: strings.Replace(aguiBody(aguiUser, ""), `"forwardedProps":{}`, `"forwardedProps":{"carrel":{"config":{"permission_mode":"x"}}}`, 1), status: 400, detail: "permission_mode"},
		{name: "a long reason", body: aguiResume(`{"interruptId":"run_1.apr_1","status":"resolved","payload":{"approved":false,"reason":"` + strings.Repeat("x", maxReasonBytes+1) + `"}}`), status: 413, detail: "resume[0].payload.reason"},
		{
			name: "a message while the thread waits", body: aguiBody(aguiUser, ""), status: 409, detail: "run_1.apr_1",
			prepare: func(f *fakeService) { asks(f, "ana", "apr_1") },
		},
		{
			name: "a message of another user while one's thread waits", body: aguiBody(aguiUser, ""), status: 200,
			prepare: func(f *fakeService) { asks(f, "bob", "apr_1") },
		},
		{
			name: "a new message with an answer", status: 409, detail: "resume first",
			body:    aguiBody(`{"id":"9","role":"user","content":"new"}`, `,"resume":[`+allows("run_1.apr_1")+`]`),
			prepare: func(f *fakeService) { asks(f, "ana", "apr_1") },
		},
		{
			name: "answers to two runs", body: aguiResume(allows("run_1.apr_1"), allows("run_2.apr_1")), status: 400, detail: "another run",
			prepare: func(f *fakeService) { asks(f, "ana", "apr_1"); asks(f, "ana", "apr_1") },
		},
		{
			name: "an answer that is not taken", body: aguiResume(allows("run_1.apr_1")), status: 500,
			prepare: func(f *fakeService) {
				asks(f, "ana", "apr_1")
				f.onApprove = func(string, string) error { return errors.New("disk") }
			},
		},
		{name: "a daemon that ends", body: aguiBody(aguiUser, ""), status: 503, prepare: func(f *fakeService) {
			f.failure = protocol.Errorf(protocol.CodeShuttingDown, "ends")
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake()
			if tt.prepare != nil {
				tt.prepare(f)
			}
			headers := tt.headers
			if tt.headers == nil {
				headers = []string{"Accept: text/event-stream"}
			}
			w := ask(t, New(f, Options{}), http.MethodPost, aguiPath, tt.body, append([]string{"X-Carrel-User: ana"}, headers...)...)
			if tt.status == 200 {
				aguiEvents(t, w)
				return
			}
			if p := problem(t, w); p.Status != tt.status || !strings.Contains(p.Detail, tt.detail) {
				t.Errorf("%d %s, want %d with %q", w.Code, w.Body, tt.status, tt.detail)
			}
			if len(f.submissions) > 0 && f.failure == nil || len(f.decided) > 0 {
				t.Errorf("submitted %+v, decided %+v", f.submissions, f.decided)
			}
			if f.openReaders() > 0 {
				t.Error("a reader is left")
			}
		})
	}
}

func TestAGUIUserIsTheHeadersAndNobodyElse(t *testing.T) {
	for _, tt := range []struct {
		name, key string
		headers   []string
		status    int
		user      string
	}{
		{"an admin for a user", "key-admin", []string{"X-Carrel-User: a%2Fb%20%E2%98%83"}, 200, "a/b ☃"},
		{"an admin for nobody", "key-admin", nil, 400, ""},
		{"an admin for two", "key-admin", []string{"X-Carrel-User: ana", "X-Carrel-User: bob"}, 400, ""},
		{"an admin for no user", "key-admin", []string{"X-Carrel-User: "}, 400, ""},
		{"an admin for none that can be", "key-admin", []string{"X-Carrel-User: %00"}, 400, ""},
		{"an admin, malformed", "key-admin", []string{"X-Carrel-User: %zz"}, 400, ""},
		{"a user", "key-ana", nil, 200, "ana"},
		{"a user by name", "key-ana", []string{"X-Carrel-User: %61na"}, 200, "ana"},
		{"a user for another", "key-ana", []string{"X-Carrel-User: bob"}, 403, ""},
		{"a user for itself and another", "key-ana", []string{"X-Carrel-User: ana", "X-Carrel-User: bob"}, 400, ""},
		{"a key that is nobody's", "key-zero", nil, 403, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake()
			// What the body says of a user counts for nothing.
			body := strings.Replace(aguiBody(aguiUser, `,"user_id":"eve"`), `"forwardedProps":{}`, `"forwardedProps":{"user_id":"eve","X-Carrel-User":"eve"}`, 1)
			w := ask(t, New(f, Options{Identify: identify}), http.MethodPost, aguiPath, body, append(tt.headers, bearerOf(tt.key))...)
			if w.Code != tt.status {
				t.Fatalf("%d %s", w.Code, w.Body)
			}
			if tt.status != 200 {
				untouched(t, f, tt.name)
			} else if f.submissions[0].Request.UserID != tt.user {
				t.Errorf("it is run for %q", f.submissions[0].Request.UserID)
			}
		})
	}
}

// brokenReader gives one event and then an error.
type brokenReader struct{ given bool }

func (r *brokenReader) Next(context.Context) ([]protocol.Event, error) {
	if r.given {
		return nil, errors.New("the database's own words")
	}
	r.given = true
	return []protocol.Event{{RunID: "run_1", Seq: 1, Type: protocol.EventTextDelta, Data: json.RawMessage(`{"text":"a"}`)}}, nil
}

func (r *brokenReader) Close() {}

func TestAGUIFailureInMidStreamIsItsOwnEvent(t *testing.T) {
	f := newFake()
	f.onEvents = func(context.Context, string, int64) (EventReader, error) { return &brokenReader{}, nil }
	w := askAGUI(t, f, aguiBody(aguiUser, ""))
	events := aguiEvents(t, w)
	want := []string{agui.RunStarted, agui.TextMessageStart, agui.TextMessageContent, agui.TextMessageEnd, agui.RunError}
	if diff := cmp.Diff(want, typesOf(events)); diff != "" {
		t.Error(diff)
	}
	if end := events[4]; end.Code != protocol.CodeInternal || strings.Contains(w.Body.String(), "own words") {
		t.Errorf("it ends with %+v", end)
	}
}

// A client that leaves takes its reader with it, and its run goes on.
func TestAGUIClientThatLeavesStopsNothing(t *testing.T) {
	f := newFake()
	f.onExecute = func(f *fakeService, run *protocol.Run) {
		f.emit(run.RunID, protocol.EventTextDelta, protocol.TextDelta{Text: "half"})
	}
	server := httptest.NewServer(New(f, Options{}))
	ctx, leave := context.WithCancel(t.Context())
	r := request(t, http.MethodPost, server.URL+aguiPath, aguiBody(aguiUser, ""), "X-Carrel-User: ana").WithContext(ctx)
	resp, err := server.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() && !strings.Contains(lines.Text(), "half") {
	}
	leave()
	_ = resp.Body.Close()
	server.Close() // waits for the handler
	if n := f.openReaders(); n != 0 {
		t.Errorf("%d readers are left", n)
	}
	if run, err := f.Run(t.Context(), "run_1"); err != nil || run.Status.Ended() {
		t.Errorf("the run is %+v, %v", run, err)
	}
}

func TestAGUIStreamEndsWhenItsKeyIsTakenAway(t *testing.T) {
	f := newFake()
	f.onExecute = func(f *fakeService, run *protocol.Run) {
		f.emit(run.RunID, protocol.EventTextDelta, protocol.TextDelta{Text: "half"})
	}
	alive, revoke := context.WithCancelCause(t.Context())
	server := httptest.NewServer(New(f, Options{Identify: func(string) (Caller, bool) {
		return Caller{Name: "ana-phone", User: "ana", Revoked: alive}, true
	}}))
	defer server.Close()
	resp, err := server.Client().Do(request(t, http.MethodPost, server.URL+aguiPath, aguiBody(aguiUser, ""), bearerOf("key-ana")))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	reader := bufio.NewReader(resp.Body)
	if _, err := reader.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	revoke(errors.New("taken away"))
	rest, err := io.ReadAll(reader)
	if err != nil || !slices.ContainsFunc(strings.Split(string(rest), "\n\n"), func(frame string) bool {
		return strings.HasPrefix(frame, `data: {"type":"RUN_ERROR"`)
	}) {
		t.Errorf("%v: %s", err, rest)
	}
	if n := f.openReaders(); n != 0 {
		t.Errorf("%d readers are left", n)
	}
}
