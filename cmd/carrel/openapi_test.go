package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"

	"carrel/internal/anthropictest"
	"carrel/internal/httpapi"
	"carrel/internal/openapitest"
	"carrel/protocol"
)

// asker asks a daemon, and holds what it answers against the document.
type asker struct {
	t        *testing.T
	http     *http.Client
	url, key string
}

// ask sends a request; headers are "Name: value".
func (a asker) ask(method, path, body string, want int, headers ...string) []byte {
	a.t.Helper()
	req, err := http.NewRequestWithContext(a.t.Context(), method, a.url+path, strings.NewReader(body))
	if err != nil {
		a.t.Fatal(err)
	}
	if a.key != "" {
		req.Header.Set("Authorization", "Bearer "+a.key)
	}
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ": ")
		req.Header.Set(name, value)
	}
	resp, err := a.http.Do(req)
	if err != nil {
		a.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != want {
		a.t.Errorf("%s %s: %d %.300s, %v; want %d", method, path, resp.StatusCode, answer, err, want)
	}
	return answer
}

// begin sets a run of a script going and waits until it says "going".
func (a asker) begin(user, script, key string) (run protocol.Run, body string) {
	a.t.Helper()
	b, err := json.Marshal(protocol.ExecuteRequest{UserID: user, Message: script, Config: protocol.RunConfig{Agent: "shell"}})
	if err != nil {
		a.t.Fatal(err)
	}
	answer := a.ask("POST", "/v1/execute", string(b), 202, "Prefer: respond-async", "Idempotency-Key: "+key)
	if err := json.Unmarshal(answer, &run); err != nil {
		a.t.Fatal(err)
	}
	return run, string(b)
}

const events = "Accept: text/event-stream"

// Everything that the document tells of is seen here in what real daemons answer: each
// operation with each of its good answers, each event, and each code but those that a
// sound daemon has no reason for.
func TestDaemonAnswersAsDocumented(t *testing.T) {
	document, err := openapitest.New(httpapi.OpenAPI(""))
	if err != nil {
		t.Fatal(err)
	}
	a := asker{t: t, http: checking(t, document)}
	a.askOfRuns()
	a.askOfRefusals()
	unsound := []protocol.Code{
		protocol.CodeInternal, protocol.CodeWorkerProtocolError, protocol.CodeWorkerStartFailed, // faults of ours
		protocol.CodeIsolationUnavailable, protocol.CodeOutOfMemory, // by the host
		protocol.CodeShuttingDown, // by the moment
	}
	for _, unseen := range document.Unseen() {
		if code, ok := strings.CutPrefix(unseen, "code "); !ok || !slices.Contains(unsound, protocol.Code(code)) {
			t.Errorf("the document tells of it, and no daemon has shown it here: %s (add a request to askOfRuns or its like)", unseen)
		}
	}
	seen := document.Seen()
	t.Logf("seen: %d kinds of good answers and problems, %d codes, %d events", len(seen.Answers), len(seen.Codes), len(seen.Events))
}

// askOfRuns asks a daemon without a sign-in, whose model calls a tool that a rule asks
// about.
func (a asker) askOfRuns() {
	t := a.t
	t.Helper()
	gone := removal("grant", "removed 'keep'", "Gone.")
	gone.calls = append([]anthropictest.Block{anthropictest.Thinking("signed", "Let me see.")}, gone.calls...)
	script := append(turns(gone), anthropictest.Turn{Reply: anthropictest.Reply{Status: 400, Error: "invalid_request_error", Message: "no"}})
	s := play(t, script, permissions(t, askForRemoval), "CARREL_BUDGET_USER_DAY_TOKENS=220", "SANDBOX_DISK_QUOTA=64MiB")
	a.url = s.url
	a.askOfFiles()

	run := s.execute("ana", "grant")
	q, _ := s.question(run.RunID)
	a.ask("POST", "/v1/runs/"+run.RunID+"/approvals/"+q.ApprovalID, `{"decision":"allow","reason":"it may go"}`, 200)
	a.ask("GET", "/v1/runs/"+run.RunID+"/events?after=0", "", 200)
	a.ask("GET", "/v1/runs/"+run.RunID+"/events", "", 200, "Last-Event-ID: 3")
	a.ask("GET", "/v1/runs/"+run.RunID, "", 200)
	a.ask("POST", "/v1/execute", `{"user_id":"ana","message":"more"}`, 429) // of the budget
	a.ask("POST", "/v1/execute", `{"user_id":"bob","message":"hello"}`, 502)
	a.ask("GET", "/v1/runs?limit=1&user_id=ana&session_id=s&status=finished", "", 200)

	a.ask("GET", "/v1/users/ana/sessions", "", 200)
	a.ask("GET", "/v1/users/ana/sessions/s", "", 200)
	a.ask("POST", "/v1/users/ana/sessions/s/fork", `{"session_id":"t"}`, 201)
	a.ask("POST", "/v1/users/ana/sessions/s/fork", `{"session_id":"t"}`, 409)
	a.ask("DELETE", "/v1/users/ana/sessions/t", "", 204)

	a.askOfEndings(s.daemon)
	a.ask("GET", "/v1/sandboxes", "", 200)
	a.ask("GET", "/v1/users/ana/sandbox", "", 200)
	a.ask("GET", "/v1/system", "", 200)
	a.ask("GET", "/healthz", "", 200)
	a.ask("GET", "/readyz", "", 200)
	a.ask("HEAD", "/readyz", "", 200)
	a.ask("GET", "/metrics", "", 200)
	a.ask("GET", "/metrics", "", 200, "Accept: application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited")
	a.ask("DELETE", "/v1/users/ana/sandbox?purge=true", "", 204)
	a.ask("GET", "/nowhere", "", 404)
	a.ask("POST", "/healthz", "", 405)
	system, err := s.client.System(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if served := a.ask("GET", "/openapi.json", "", 200); !bytes.Equal(served, httpapi.OpenAPI(system.Version)) {
		t.Error("the daemon serves another document than the tree has")
	}
	s.stop()
}

// askOfEndings asks for what scripts come to. A run that was set going is awaited by
// its idempotency key.
func (a asker) askOfEndings(d *daemon) {
	a.t.Helper()
	const well = `{"user_id":"eve","message":"echo out; echo err >&2","config":{"agent":"shell"}}`
	a.ask("POST", "/v1/execute", well, 200)
	a.ask("POST", "/v1/execute", well, 200, events)
	a.ask("POST", "/v1/execute", `{"user_id":"eve","message":"sleep 1000","config":{"agent":"shell","timeout_s":0.3}}`, 504)
	a.ask("POST", "/v1/execute", `{"user_id":"eve","message":"m","config":{"agent":"nobody"}}`, 400)
	a.ask("POST", "/v1/execute", `{"user_id":"eve","message":"`+strings.Repeat("x", protocol.MaxMessageBytes+1)+`"}`, 413)
	a.ask("POST", "/v1/execute", `{"user_id":"eve","message":"m","attachments":[{"id":"file_none"}]}`, 404)
	a.ask("POST", "/v1/execute", `<xml/>`, 415, "Content-Type: text/xml")
	a.ask("POST", "/v1/execute", well, 406, "Accept: text/html")
	const conversation = `{"threadId":"t","runId":"r","messages":[{"id":"1","role":"user","content":"echo out"}],"forwardedProps":{"carrel":{"config":{"agent":"shell"}}}}`
	a.ask("POST", "/v1/ag-ui", conversation, 200, "X-Carrel-User: eve")
	a.ask("POST", "/v1/users/eve/exec", `{"command":"echo out; echo err >&2; exit 3"}`, 200)
	a.ask("POST", "/v1/users/eve/exec", `{"command":["sh","-c","echo out; echo err >&2"],"cwd":"/tmp","stdin":"x","env":{"A":"b"},"timeout_s":20}`, 200, events)

	run, body := a.begin("eve", "trap '' TERM; echo going; sleep 1000", "canceled") // which takes its time to end
	a.ask("POST", "/v1/execute", strings.Replace(body, "going", "gone", 1), 409, "Idempotency-Key: canceled")
	cancel := "/v1/runs/" + run.RunID + "/cancel"
	a.working(d, run)
	a.ask("POST", cancel, "", 202)
	a.ask("POST", "/v1/execute", body, 499, "Idempotency-Key: canceled")
	a.ask("POST", cancel, "", 200)

	run, body = a.begin("eve", "echo going; sleep 1000", "crashed")
	if err := syscall.Kill(a.working(d, run), syscall.SIGKILL); err != nil {
		a.t.Fatal(err)
	}
	a.ask("POST", "/v1/execute", body, 502, "Idempotency-Key: crashed")
	a.ask("GET", "/v1/runs/"+run.RunID, "", 200) // with its cause
	a.ask("GET", "/v1/runs/"+run.RunID+"/events", "", 200)
}

// working waits until a script says that it is going, and is its worker's process.
func (a asker) working(d *daemon, run protocol.Run) int {
	a.t.Helper()
	for ev, err := range d.client.Events(a.t.Context(), run.RunID, 0) {
		if err != nil {
			a.t.Fatal(err)
		}
		if strings.Contains(string(ev.Data), "going") {
			return workerOf(d, run.UserID).PID
		}
	}
	a.t.Fatalf("run %s ended before it was going", run.RunID)
	return 0
}

// askOfFiles asks for a user's files, and leaves "keep".
func (a asker) askOfFiles() {
	t := a.t
	t.Helper()
	const files, octets, asTar = "/v1/users/ana/files", "Content-Type: application/octet-stream", "Content-Type: application/x-tar"
	a.ask("GET", files+"/a", "", 404)
	a.ask("PUT", files+"/d/keep", "0123456789", 201, octets)
	a.ask("PUT", files+"/d/keep", "0123456789", 200)
	a.ask("PUT", files+"/keep", "x", 201, "If-None-Match: *")
	a.ask("PUT", files+"/keep", "x", 412, "If-None-Match: *")
	a.ask("PUT", files+"/d", "x", 409)
	archive := tarOf(t, "one", "two")
	a.ask("PUT", files+"/unpacked?archive=tar", archive, 200, octets)
	a.ask("PUT", files, archive, 200, asTar)
	a.ask("GET", files+"/d/keep", "", 200)
	a.ask("HEAD", files+"/d/keep", "", 200)
	a.ask("GET", files+"/d/keep", "", 206, "Range: bytes=2-4")
	a.ask("GET", files+"/d/keep", "", 206, "Range: bytes=2-4,6-7")
	a.ask("GET", files+"/d/keep", "", 304, "If-Modified-Since: Fri, 02 Jan 2099 03:04:05 GMT")
	a.ask("GET", files+"/d/keep", "", 416, "Range: bytes=90-")
	a.ask("GET", files+"/d/keep", "", 412, `If-Match: "0"`)
	a.ask("GET", files+"/d?limit=1", "", 200)
	a.ask("GET", files+"/d", "", 200, "Accept: application/x-tar")
	a.ask("GET", files, "", 200)
	a.ask("GET", files+"?archive=tar", "", 200)
	a.ask("DELETE", files+"/d", "", 204)

	a.ask("POST", "/v1/users/ana/attachments?name=plan.txt", "text", 201, "Content-Type: text/plain")
	form := "--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"a.txt\"\r\n\r\ntext\r\n--b--\r\n"
	a.ask("POST", "/v1/users/ana/attachments", form, 201, "Content-Type: multipart/form-data; boundary=b")
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, a.url+files+"/large", patterned(1<<30))
	if err != nil {
		t.Fatal(err)
	}
	req.ContentLength = 1 << 30
	req.Header.Set("Expect", "100-continue")
	resp, err := a.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(io.Discard, resp.Body)
	if _ = resp.Body.Close(); err != nil || resp.StatusCode != http.StatusInsufficientStorage {
		t.Errorf("more than the quota: %d, %v", resp.StatusCode, err)
	}
}

// tarOf is an archive of files that hold their names.
func tarOf(t *testing.T, names ...string) string {
	t.Helper()
	var b strings.Builder
	w := tar.NewWriter(&b)
	for _, name := range names {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(name))}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, name); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// askOfRefusals asks a daemon with keys and one worker, kills it, and asks its successor.
func (a asker) askOfRefusals() {
	t := a.t
	t.Helper()
	env := []string{"SANDBOX_MAX_WORKERS=1", "SANDBOX_WARM_WORKERS=0", "SANDBOX_QUEUE_SIZE=1", "SANDBOX_QUEUE_TIMEOUT=3s"}
	g := serveGuarded(t, env...)
	a.url, a.key = g.url, g.product
	a.ask("GET", "/v1/sandboxes", "", 200)
	run, body := a.begin("ana", "echo going; sleep 1000", "interrupted")
	c := g.clientOf(g.product)
	for ev, err := range c.Events(t.Context(), run.RunID, 0) {
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(ev.Data), "going") {
			break
		}
	}
	_, waits := a.begin("bob", "true", "waits")
	a.ask("POST", "/v1/users/carl/exec", `{"command":"true"}`, 429) // bob fills the queue
	a.ask("POST", "/v1/execute", waits, 429, "Idempotency-Key: waits")

	bob := a
	bob.key = g.bob
	bob.ask("GET", "/v1/users/ana/sandbox", "", 403)
	bob.ask("GET", "/v1/runs/"+run.RunID, "", 404)
	bob.ask("GET", "/v1/runs", "", 200)
	for i := range 12 {
		bob.key = "carrel_wrong" + itoa(i)
		want := http.StatusUnauthorized
		if i >= 10 {
			want = http.StatusTooManyRequests
		}
		bob.ask("GET", "/v1/runs", "", want)
	}

	g.Kill()
	d := serve(t, g.base, append(env, "CARREL_API_KEYS_FILE="+g.file)...)
	a.url = d.url
	a.ask("POST", "/v1/execute", body, 503, "Idempotency-Key: interrupted")
	a.ask("GET", "/v1/runs/"+run.RunID+"/events", "", 200)
	d.stop()
}
