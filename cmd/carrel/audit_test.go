package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"carrel/internal/anthropictest"
	"carrel/internal/audit"
	"carrel/protocol"
)

// auditLog reads a daemon's audit log: each line is whole, and they are numbered.
func auditLog(t *testing.T, file string) []audit.Event {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var events []audit.Event
	next := int64(0)
	for line := range bytes.Lines(content) {
		var e audit.Event
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatalf("line %q: %v", line, err)
		}
		if next++; e.Action == audit.DaemonStarted {
			next = 1
		}
		if e.Seq != next {
			t.Fatalf("line %q where %d was due", line, next)
		}
		events = append(events, e)
	}
	return events
}

func (d *daemon) remove(path string) {
	d.t.Helper()
	req, err := http.NewRequestWithContext(d.t.Context(), http.MethodDelete, d.url+path, http.NoBody)
	if err != nil {
		d.t.Fatal(err)
	}
	if status, body := d.do(req); status != http.StatusNoContent {
		d.t.Fatalf("DELETE %s: status %d, %s", path, status, body)
	}
}

// about are the lines of an action.
func about(events []audit.Event, a audit.Action) []audit.Event {
	return slices.DeleteFunc(slices.Clone(events), func(e audit.Event) bool { return e.Action != a })
}

func actions(events []audit.Event) string {
	var names []string
	for _, e := range events {
		names = append(names, string(e.Action))
	}
	return strings.Join(names, " ")
}

// One line tells who did it, what was decided and how it ended, and none what was said.
func TestAuditLogTellsWhoHadWhatDone(t *testing.T) {
	base := t.TempDir()
	d := serve(t, base)
	const secret = "echo said-in-confidence; exit 3"
	d.script("ana\u2028{}", secret)
	d.exec("bob", secret)
	if status, _ := d.post("/v1/users/bob/attachments?name=said-in-confidence", "x", http.Header{"Content-Type": {"text/plain"}}); status != http.StatusCreated {
		t.Errorf("attachment: status %d", status)
	}
	run := d.start("ana", "echo begun; sleep 1000", "begun")
	if _, err := d.client.Cancel(t.Context(), run.RunID); err != nil {
		t.Fatal(err)
	}
	d.ending(run.RunID)
	d.remove("/v1/users/bob/sandbox?purge=true")
	d.stop()

	file := filepath.Join(base, "audit.log")
	events := auditLog(t, file)
	if got, want := actions(events), "daemon_started run_submitted run_started run_ended exec_started exec_ended attachment_added "+
		"run_submitted run_started run_canceled run_ended sandbox_purged daemon_stopped"; got != want {
		t.Fatalf("the log has %s\nwant %s", got, want)
	}
	first, submitted, ended, command := events[0], events[1], events[3], events[5]
	if first.Isolation == "" || first.Layers["landlock"] != "ok" || first.PID != d.cmd.Process.Pid {
		t.Errorf("the daemon: %+v", first)
	}
	if submitted.UserID != "ana\u2028{}" || submitted.Caller != "local" || submitted.Decision != audit.Allow || submitted.SessionID == "" || submitted.Agent != "shell" {
		t.Errorf("submitted: %+v", submitted)
	}
	if ended.RunID != submitted.RunID || ended.Status != "finished" || *ended.ExitCode != 3 || ended.Seconds <= 0 || ended.Caller != "local" {
		t.Errorf("ended: %+v", ended)
	}
	if command.UserID != "bob" || *command.ExitCode != 3 || command.RunID != events[4].RunID {
		t.Errorf("exec: %+v", command)
	}
	if end := events[10]; end.Code != protocol.CodeCanceled || end.RunID != run.RunID || events[9].Caller != "local" {
		t.Errorf("canceled: %+v", end)
	}
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(content, []byte("confidence")) || bytes.Contains(content, []byte("\u2028")) {
		t.Errorf("it tells too much: %s", content)
	}
}

func TestAuditLogKeepsContentIfAskedFor(t *testing.T) {
	file := filepath.Join(t.TempDir(), "kept.log")
	d := serve(t, t.TempDir(), "CARREL_AUDIT_FILE="+file, "CARREL_AUDIT_CONTENT=true")
	d.script("ana", "echo hello")
	d.exec("ana", "echo there")
	d.stop()
	events := auditLog(t, file)
	if run, command := about(events, audit.RunSubmitted), about(events, audit.ExecStarted); len(run) != 1 || run[0].Content != "echo hello" ||
		len(command) != 1 || !strings.Contains(command[0].Content, "echo there") {
		t.Errorf("%+v, %+v", run, command)
	}
}

// A killed daemon's log goes on in the next one's, and what was going has its end there.
func TestAuditLogHasAnEndForTheRunsOfAKilledDaemon(t *testing.T) {
	base := t.TempDir()
	d := serve(t, base)
	run := d.start("ana", "echo begun; sleep 1000", "begun")
	d.Kill()
	d = serve(t, base)
	d.stop()
	events := auditLog(t, filepath.Join(base, "audit.log"))
	if got := actions(events); got != "daemon_started run_submitted run_started daemon_started run_ended daemon_stopped" {
		t.Fatalf("the log has %s", got)
	}
	if end := events[4]; end.RunID != run.RunID || end.UserID != "ana" || end.Code != protocol.CodeInterrupted || end.Seq != 2 {
		t.Errorf("the end: %+v", end)
	}
}

// What stands in the log's way is a link here; a full disk is tried in the log's own tests.
func TestNothingRunsWithoutARequiredAuditLog(t *testing.T) {
	file := filepath.Join(t.TempDir(), "audit.log")
	d := serve(t, t.TempDir(), "CARREL_AUDIT_FILE="+file, "CARREL_AUDIT_REQUIRED=true")
	aside := func() {
		t.Helper()
		if err := os.Rename(file, file+".aside"); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("/dev/null", file); err != nil {
			t.Fatal(err)
		}
	}
	refused := func(path, body string) {
		t.Helper()
		status, answer := d.post(path, body, nil)
		if status != http.StatusInternalServerError || !strings.Contains(string(answer), "CARREL_AUDIT_REQUIRED") || strings.Contains(string(answer), file) {
			t.Errorf("%s: status %d, %s", path, status, answer)
		}
	}
	aside()
	for range 2 { // the run that finds it out, and one that comes when it is known
		refused("/v1/execute", `{"user_id":"ana","message":"touch ran"}`)
		refused("/v1/users/ana/exec", `{"command":"touch ran"}`)
	}
	if status, _ := d.get("/readyz", nil); status != http.StatusServiceUnavailable {
		t.Errorf("ready: status %d", status)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if r := d.exec("ana", "ls"); r.Stdout != "" {
		t.Errorf("something was run: %s", r.Stdout)
	}
	if status, metrics := d.get("/metrics", nil); status != http.StatusOK || strings.Contains(string(metrics), "\ncarrel_audit_lost_total 0\n") {
		t.Errorf("no lost line is counted")
	}
	d.stop()
	content, err := os.ReadFile(file)
	if err != nil || !strings.Contains(string(content), `"action":"lost"`) {
		t.Errorf("%s, %v", content, err)
	}
}

func TestSIGHUPLetsAnAuditLogGoThatWasPutAside(t *testing.T) {
	base := t.TempDir()
	d := serve(t, base)
	file := filepath.Join(base, "audit.log")
	if err := os.Rename(file, file+".aside"); err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	for _, err := os.Stat(file); err != nil; _, err = os.Stat(file) { // the test's own time limit ends it
		d.get("/healthz", nil)
	}
	d.stop()
}

// What the sandbox denies is told to whoever runs the command in one line, beside its
// output, and to the operator; a user's own mistakes are not.
func TestDenialsAreToldToTheUserAndToTheOperator(t *testing.T) {
	base := t.TempDir()
	d := serve(t, base, "SANDBOX_PIDS_LIMIT=96")
	rows := []struct {
		name, command string
		layer, rule   string
		target        string // part of it
	}{
		{"connect", "exec 5<>/dev/tcp/192.0.2.1/80", "landlock", "tcp", "192.0.2.1"},
		{"resolve", "python3 -c 'import urllib.request; urllib.request.urlopen(\"http://example.com\")'", "network-namespace", "network", ""},
		{"write to /etc", "echo x > /etc/x", "mount-namespace", "read-only", "/etc/x"},
		{"write over /etc/passwd", "echo x > /etc/passwd", "mount-namespace", "read-only", "/etc/passwd"},
		{"read the worker's home", "cat /home/agent/x", "landlock", "places", "/home/agent/x"},
		{"mount", "mount -t tmpfs none /tmp", "user-namespace", "one-user", ""},
		{"unshare", "unshare -r true", "seccomp", "system-call", ""},
		{"kill the worker", "kill -9 1", "landlock", "signals", ""},
		{"fork bomb", "n=0; while [ $n -lt 500 ]; do sleep 100 & n=$((n+1)); done", "limits", "processes", ""},
		{"fill /tmp", "dd if=/dev/zero of=/tmp/x bs=1M count=1024; s=$?; rm /tmp/x; exit $s", "limits", "tmp-size", "/tmp/x"},
		{"one big file", "truncate -s 2G x", "limits", "file-size", ""},
		{"script without its execute bit", "echo 'echo x' > s; ./s", "", "", ""},
		{"file of mode 0", "echo x > c; chmod 0 c; cat c", "", "", ""},
		{"remove nothing", "rm nothing /workspace/nothing", "", "", ""},
		{"kill what is gone", "sleep 0 & p=$!; wait; kill $p", "", "", ""},
		{"plain failure", "exit 7", "", "", ""},
	}
	told := 0
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			if row.name == "resolve" {
				requires(t, "python3")
			}
			body, err := json.Marshal(protocol.ExecRequest{Command: protocol.Command{Args: []string{"/bin/bash", "-c", row.command}}})
			if err != nil {
				t.Fatal(err)
			}
			_, answer := d.post("/v1/users/ana/exec", string(body), nil)
			var r protocol.ExecResult
			if err := json.Unmarshal(answer, &r); err != nil || r.ExitCode == 0 {
				t.Fatalf("%s, %v", answer, err)
			}
			if strings.Contains(r.Stdout+r.Stderr, "carrel: ") {
				t.Errorf("the output is falsified: %s", r.Stderr)
			}
			if row.layer == "" {
				if len(r.Denials) != 0 {
					t.Errorf("%q is called a denial: %+v", r.Stderr, r.Denials)
				}
				return
			}
			if len(r.Denials) != 1 || r.Denials[0].Layer != row.layer || r.Denials[0].Rule != row.rule ||
				!strings.Contains(r.Denials[0].Target, row.target) || !r.Denials[0].Inferred {
				t.Fatalf("%q is told as %+v", r.Stderr, r.Denials)
			}
			told++
			events := about(auditLog(t, filepath.Join(base, "audit.log")), audit.Denied)
			if e := events[len(events)-1]; len(events) != told || e.Layer != row.layer || e.Rule != row.rule || e.Source != audit.FromWorker ||
				e.UserID != "ana" || e.Decision != audit.Deny || !strings.HasPrefix(e.RunID, "exec_") || e.Caller != "local" || !e.Inferred {
				t.Errorf("%d denials in the log, the last one %+v", len(events), e)
			}
		})
	}
	// The shell agent tells it beside the output as well.
	r := d.script("ana", "echo x > /etc/x")
	if len(r.Denials) != 1 || r.Denials[0].Target != "/etc/x" || strings.Contains(r.Content, "carrel: ") {
		t.Errorf("%+v", r)
	}
	_, metrics := d.get("/metrics", nil)
	if !strings.Contains(string(metrics), "\ncarrel_denials_total{layer=\"mount-namespace\"} 3\n") || !strings.Contains(string(metrics), "\ncarrel_denials_total{layer=\"other\"} 0\n") {
		t.Errorf("metrics: %s", metrics)
	}
	d.stop()
}

func requires(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Skipf("there is no %s", program)
	}
}

// A model reads of a denial in the result of its tool; the operator reads who has let
// the tool be used, by which rule.
func TestModelAndOperatorReadOfDenialsAndDecisions(t *testing.T) {
	rules := filepath.Join(t.TempDir(), "permissions.json")
	if err := os.WriteFile(rules, []byte(`{"deny": ["bash(rm *)"], "ask": ["write"]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	steps := []step{{
		message: "get out", answer: "I could not.",
		calls: []anthropictest.Block{
			bash("t1", "echo x > /etc/x"),
			call("t2", "read", map[string]any{"path": "/home/agent/x"}),
			bash("t3", "rm -rf /"),
			call("t4", "write", map[string]any{"path": "x", "content": "secret-content"}),
		},
		results: []string{
			"!carrel: /etc/x is read-only here (mount-namespace, likely)", "!denied by the sandbox (landlock)", "!denied: the permission rule", "!denied by a person",
		},
	}}
	s := play(t, turns(steps...), "CARREL_PERMISSIONS_FILE="+rules, "CARREL_APPROVAL_TIMEOUT=1s")
	s.perform("ana", steps)
	s.stop()
	events := auditLog(t, filepath.Join(s.base, "audit.log"))
	var denied, decided []string
	for _, e := range about(events, audit.Denied) {
		denied = append(denied, e.Layer+" "+e.Target)
	}
	for _, e := range about(events, audit.ToolDecided) {
		decided = append(decided, strings.Join([]string{e.CallID, e.Tool, e.Decision, e.By, e.Rule, e.Source}, " "))
	}
	slices.Sort(denied) // the calls go side by side
	slices.Sort(decided)
	if want := []string{"landlock /home/agent/x", "mount-namespace /etc/x"}; !slices.Equal(denied, want) {
		t.Errorf("denied: %q, want %q", denied, want)
	}
	want := []string{"t1 bash allow default  worker", "t2 read allow default  worker", "t3 bash deny rule bash(rm *) worker", "t4 write deny person write worker"}
	if !slices.Equal(decided, want) {
		t.Errorf("decided: %q, want %q", decided, want)
	}
	asked, ended := about(events, audit.ApprovalAsked), about(events, audit.ApprovalEnded)
	if len(asked) != 1 || len(ended) != 1 || asked[0].Tool != "write" || ended[0].ApprovalID != asked[0].ApprovalID || ended[0].By != "timeout" || ended[0].Decision != audit.Deny {
		t.Errorf("asked %+v, ended %+v", asked, ended)
	}
	content, err := os.ReadFile(filepath.Join(s.base, "audit.log"))
	if err != nil || bytes.Contains(content, []byte("secret-content")) || bytes.Contains(content, []byte("rm -rf")) {
		t.Errorf("the log tells too much: %s, %v", content, err)
	}
}
