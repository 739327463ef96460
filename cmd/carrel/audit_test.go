package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

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
	first, submitted, ended, exec := events[0], events[1], events[3], events[5]
	if first.Isolation == "" || first.Layers["landlock"] != "ok" || first.PID != d.cmd.Process.Pid {
		t.Errorf("the daemon: %+v", first)
	}
	if submitted.UserID != "ana\u2028{}" || submitted.Caller != "local" || submitted.Decision != audit.Allow || submitted.SessionID == "" || submitted.Agent != "shell" {
		t.Errorf("submitted: %+v", submitted)
	}
	if ended.RunID != submitted.RunID || ended.Status != "finished" || *ended.ExitCode != 3 || ended.Seconds <= 0 || ended.Caller != "local" {
		t.Errorf("ended: %+v", ended)
	}
	if exec.UserID != "bob" || *exec.ExitCode != 3 || exec.RunID != events[4].RunID {
		t.Errorf("exec: %+v", exec)
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
	if run, exec := about(events, audit.RunSubmitted), about(events, audit.ExecStarted); len(run) != 1 || run[0].Content != "echo hello" ||
		len(exec) != 1 || !strings.Contains(exec[0].Content, "echo there") {
		t.Errorf("%+v, %+v", run, exec)
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
