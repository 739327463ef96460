package main

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"carrel/internal/anthropictest"
	"carrel/internal/logline"
	"carrel/protocol"
)

// logLine is one of the daemon's log.
type logLine map[string]any

func (l logLine) text(key string) string {
	s, _ := l[key].(string)
	return s
}

// lines are those with this message; the daemon has ended.
func (d *daemon) lines(message string) []logLine {
	d.t.Helper()
	var found []logLine
	for text := range strings.Lines(d.log.String()) {
		var l logLine
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			d.t.Fatalf("no line of the log: %q", text)
		}
		if l.text("msg") == message {
			found = append(found, l)
		}
	}
	return found
}

// Whatever the daemon says of a run, it says whose and where: at the start, in the
// middle, at the end, from whichever room.
func TestEachLineAboutARunBearsRunUserSessionAndWorker(t *testing.T) {
	webhook := hookServer(t)
	script := turns(step{message: "go", calls: []anthropictest.Block{bash("t1", "true")}, results: []string{"!withholds"}, answer: "Done."})
	s := play(t, script, "CARREL_LOG_LEVEL=debug", "CARREL_PERMISSIONS_FILE="+webhook)
	run := s.execute("zz1@example.org", "go", func(r *protocol.ExecuteRequest) { r.SessionID = "s-1" })
	s.result(run.RunID)
	status, body := s.post("/v1/execute", `{"user_id":"zz1@example.org","session_id":"s-2","message":"sleep 60","config":{"agent":"shell","timeout_s":0.1}}`, nil)
	if status != http.StatusGatewayTimeout {
		t.Fatalf("%d %s", status, body)
	}
	s.exec("zz1@example.org", "true")
	if _, err := s.client.PutFile(t.Context(), "zz1@example.org", "private.txt", strings.NewReader("x"), 1); err != nil {
		t.Fatal(err)
	}
	s.get("/v1/runs/"+run.RunID, nil)
	s.stop()

	user := logline.User("zz1@example.org")
	want := func(message string, n int, keys ...string) {
		t.Helper()
		found := s.lines(message)
		if len(found) != n {
			t.Errorf("%d lines %q, want %d", len(found), message, n)
		}
		for _, l := range found {
			for _, key := range keys {
				if l[key] == nil || key == logline.KeyUser && l[key] != user {
					t.Errorf("%q has no %s: %v", message, key, l)
				}
			}
		}
	}
	all := []string{logline.KeyRun, logline.KeyUser, logline.KeySession, logline.KeyWorker}
	want("run accepted", 2, all[:3]...)
	want("run ended", 1, all...)
	want("run ended in an error", 1, all...)
	want("a webhook gave no answer", 1, all...)
	want("worker ended", 1, logline.KeyUser, logline.KeyWorker)
	requests := map[string]logLine{}
	for _, l := range s.lines("request") {
		requests[l.text("method")+" "+l.text("route")] = l
	}
	for route, keys := range map[string][]string{
		"POST /v1/execute":                        all, // the one that waited
		"POST /v1/users/{user_id}/exec":           {logline.KeyRun, logline.KeyUser, logline.KeyWorker},
		"PUT /v1/users/{user_id}/files/{path...}": {logline.KeyUser},
		"GET /v1/runs/{run_id}":                   {logline.KeyRun},
	} {
		for _, key := range keys {
			if requests[route][key] == nil {
				t.Errorf("%s has no %s: %v", route, key, requests[route])
			}
		}
	}
	for text := range strings.Lines(s.log.String()) {
		if strings.Contains(text, "example.org") || strings.Contains(text, "private.txt") {
			t.Errorf("the log names the user or his file: %s", text)
		}
	}
	// What is hashed can be found again.
	if dirs, err := filepath.Glob(filepath.Join(s.base, "users", "*-"+user+"*")); err != nil || len(dirs) != 1 {
		t.Errorf("directories of %s: %q, %v", user, dirs, err)
	}
}

// hookServer gives a file of permissions with a webhook that gives no answer.
func hookServer(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "permissions.json")
	text := `{"default": "allow", "hooks": [{"event": "after_tool", "webhook": "http://127.0.0.1:1/hook"}]}`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
