package main

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"carrel/protocol"
)

func TestBadInputIsAProblemDocumentWithItsCode(t *testing.T) {
	d := serve(t, t.TempDir())
	run := d.script("ana", "echo hi")
	long := strings.Repeat("u", 300)
	for _, c := range []struct {
		name, method, path, body string
		header                   http.Header
		status                   int
		code                     protocol.Code
	}{
		{"malformed JSON", "POST", "/v1/execute", `{"user_id":`, nil, 400, protocol.CodeInvalidRequest},
		{"unknown field", "POST", "/v1/execute", `{"user_id":"a","message":"m","mesage":"m"}`, nil, 400, protocol.CodeInvalidRequest},
		{"wrong type", "POST", "/v1/execute", `{"user_id":7,"message":"m"}`, nil, 400, protocol.CodeInvalidRequest},
		{"empty message", "POST", "/v1/execute", `{"user_id":"a","message":""}`, nil, 400, protocol.CodeInvalidRequest},
		{"10 MiB", "POST", "/v1/execute", `{"user_id":"a","message":"` + strings.Repeat("x", 10<<20) + `"}`, nil, 413, protocol.CodeTooLarge},
		{"script too long for the kernel", "POST", "/v1/execute", `{"user_id":"a","message":"` + strings.Repeat("x", 200<<10) + `"}`, nil, 413, protocol.CodeTooLarge},
		{"empty user", "POST", "/v1/execute", `{"user_id":"","message":"m"}`, nil, 400, protocol.CodeInvalidRequest},
		{"long user", "POST", "/v1/execute", `{"user_id":"` + long + `","message":"m"}`, nil, 400, protocol.CodeInvalidRequest},
		{"control character", "POST", "/v1/execute", `{"user_id":"a\u0000","message":"m"}`, nil, 400, protocol.CodeInvalidRequest},
		{"newline", "POST", "/v1/execute", `{"user_id":"a\nb","message":"m"}`, nil, 400, protocol.CodeInvalidRequest},
		{"unknown agent", "POST", "/v1/execute", `{"user_id":"a","message":"m","config":{"agent":"none"}}`, nil, 400, protocol.CodeInvalidRequest},
		{"unknown attachment", "POST", "/v1/execute", `{"user_id":"a","message":"m","attachments":[{"id":"file-1"}]}`, nil, 404, protocol.CodeNotFound},
		{"unknown run", "GET", "/v1/runs/run_none", "", nil, 404, protocol.CodeNotFound},
		{"events of an unknown run", "GET", "/v1/runs/run_none/events", "", nil, 404, protocol.CodeNotFound},
		{"cancel of an unknown run", "POST", "/v1/runs/run_none/cancel", "", nil, 404, protocol.CodeNotFound},
		{"no event id", "GET", "/v1/runs/" + run.RunID + "/events", "", http.Header{"Last-Event-Id": {"x"}}, 400, protocol.CodeInvalidRequest},
		{"wrong method", "DELETE", "/v1/execute", "", nil, 405, protocol.CodeInvalidRequest},
		{"unknown path", "GET", "/v2/none", "", nil, 404, protocol.CodeNotFound},
		{"foreign host", "GET", "/v1/system", "", http.Header{"Host": {"evil.example"}}, 403, protocol.CodeForbidden},
		{"no command", "POST", "/v1/users/ana/exec", `{"command":[]}`, nil, 400, protocol.CodeInvalidRequest},
	} {
		t.Run(c.name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), c.method, d.url+c.path, strings.NewReader(c.body))
			if err != nil {
				t.Fatal(err)
			}
			if c.method == http.MethodPost && c.body != "" {
				req.Header.Set("Content-Type", "application/json")
			}
			for name, values := range c.header {
				req.Header[name] = values
				if name == "Host" {
					req.Host = values[0]
				}
			}
			status, body := d.do(req)
			var p protocol.Problem
			if err := json.Unmarshal(body, &p); err != nil {
				t.Fatalf("status %d, no problem document: %s", status, body)
			}
			if status != c.status || p.Code != c.code || p.Status != c.status || p.Detail == "" {
				t.Errorf("status %d, %+v; want %d %s", status, p, c.status, c.code)
			}
		})
	}
	// Beyond the end of a run that has ended there is nothing, and no waiting.
	if status, body := d.get("/v1/runs/"+run.RunID+"/events?after=1000", nil); status != 200 || strings.Contains(string(body), "data:") {
		t.Errorf("beyond the end: status %d, %s", status, body)
	}
	if status, _ := d.get("/healthz", nil); status != 200 {
		t.Errorf("healthz: status %d", status)
	}
	if got := d.script("ana", "echo well"); got.Content != "well\n" {
		t.Errorf("afterwards a run gives %q", got.Content)
	}
	d.stop()
}

func TestTheThreeFormsOfExecute(t *testing.T) {
	d := serve(t, t.TempDir())
	body := `{"user_id":"ana","message":"echo out; echo err >&2; exit 3"}`
	status, stream := d.post("/v1/execute", body, http.Header{"Accept": {"text/event-stream"}})
	for _, want := range []string{"id: 1\nevent: RUN_STARTED\ndata: {", "event: TEXT_DELTA\n", "event: RUN_FINISHED\n"} {
		if !strings.Contains(string(stream), want) {
			t.Errorf("SSE (status %d) lacks %q:\n%s", status, want, stream)
		}
	}
	status, waited := d.post("/v1/execute", body, http.Header{"Accept": {"application/json"}})
	var result protocol.Result
	if err := json.Unmarshal(waited, &result); err != nil || status != 200 {
		t.Fatalf("status %d, %v: %s", status, err, waited)
	}
	if result.ExitCode == nil || *result.ExitCode != 3 || result.Status != protocol.StatusFinished || !strings.Contains(result.Content, "out\n") {
		t.Errorf("the result is %s", waited)
	}
	if status, _ := d.post("/v1/execute", body, http.Header{"Prefer": {"respond-async"}}); status != http.StatusAccepted {
		t.Errorf("respond-async: status %d", status)
	}
	d.stop()
}

func TestExecAnswersWithStatusAndBothOutputs(t *testing.T) {
	d := serve(t, t.TempDir())
	status, body := d.post("/v1/users/a%2Fb/exec", `{"command":"cat; echo err >&2; echo $X; pwd; exit 4","stdin":"in\n","env":{"X":"y"},"cwd":"/tmp"}`, nil)
	var r protocol.ExecResult
	if err := json.Unmarshal(body, &r); err != nil || status != 200 {
		t.Fatalf("status %d: %s", status, body)
	}
	if r.ExitCode != 4 || r.Stdout != "in\ny\n/tmp\n" || r.Stderr != "err\n" {
		t.Errorf("the result is %+v", r)
	}
	status, stream := d.post("/v1/users/ana/exec", `{"command":["echo","hi"]}`, http.Header{"Accept": {"text/event-stream"}})
	if status != 200 || !strings.Contains(string(stream), "event: STDOUT\ndata: {\"text\":\"hi\\n\"}") || !strings.Contains(string(stream), "event: EXIT\n") {
		t.Errorf("status %d:\n%s", status, stream)
	}
	d.stop()
}

func TestCommandLine(t *testing.T) {
	env := environment(t.TempDir())
	for _, c := range []struct {
		name   string
		args   []string
		status int
		stdout string // a part of it
		stderr string
	}{
		{"run", []string{"run", "--user", "ana", "echo hi"}, 0, "hi\n", ""},
		{"run that fails", []string{"run", "echo no >&2; exit 3"}, 3, "", "no\n"},
		{"run as JSON", []string{"run", "--json", "echo hi"}, 0, `"type":"RUN_FINISHED"`, ""},
		{"exec", []string{"exec", "--user", "ana", "--", "sh", "-c", "echo $SANDBOX_USER_ID; exit 5"}, 5, "ana\n", ""},
		{"exec of what is not there", []string{"exec", "--", "no-such-program"}, 127, "", "not found"},
		{"unknown agent", []string{"run", "--agent", "none", "m"}, 1, "", "none"},
		{"doctor", []string{"doctor"}, 0, "landlock", ""},
		{"version", []string{"version"}, 0, "carrel ", ""},
		{"required layer that is missing", []string{"--set", "SANDBOX_REQUIRE=quota", "doctor"}, 1, "quota", ""},
		{"strict start without it", []string{"--set", "SANDBOX_REQUIRE=quota", "serve"}, 1, "", "quota"},
		{"unknown key", []string{"--set", "SANDBOX_MAX_WORKER=3", "serve"}, 1, "", "SANDBOX_MAX_WORKERS"},
		{"secret-looking name", []string{"--set", "SANDBOX_ALLOWED_ENV_VARS=DATABASE_PASSWORD", "serve"}, 1, "", "DATABASE_PASSWORD"},
	} {
		t.Run(c.name, func(t *testing.T) {
			stdout, stderr, status := command(t, env, c.args...)
			if status != c.status || !strings.Contains(stdout, c.stdout) || !strings.Contains(stderr, c.stderr) {
				t.Errorf("status %d (want %d)\nstdout: %s\nstderr: %s", status, c.status, stdout, stderr)
			}
		})
	}
	d := serve(t, t.TempDir())
	stdout, stderr, status := command(t, env, "run", "--url", d.url, "--user", "ana", "echo far; exit 6")
	if status != 6 || stdout != "far\n" {
		t.Errorf("run --url: status %d, %q, %q", status, stdout, stderr)
	}
	d.stop()
}
