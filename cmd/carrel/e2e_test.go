package main

import (
	"encoding/json"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"carrel/client"
	"carrel/internal/ordeal"
	"carrel/protocol"
)

func TestTwoUsersCannotSeeEachOtherOrTheServer(t *testing.T) {
	d := serve(t, t.TempDir())
	d.script("ana", "echo hers > only-ana; mkdir sub")
	d.script("bob", "echo his > only-bob")
	look := `exec 2>&1; id -u; pwd; ls /workspace; cat /workspace/only-ana; ls /etc/shadow; ps -e -o comm= | sort -u
		env | sort; tail -n +2 /proc/net/route | wc -l; ls /home/agent /root /var`
	got := d.script("bob", look)
	for _, want := range []string{"1000\n/workspace\nonly-bob\n", "'/etc/shadow': No such file", "\n0\n", "SANDBOX_USER_ID=bob"} {
		if !strings.Contains(got.Content, want) {
			t.Errorf("bob's view lacks %q:\n%s", want, got.Content)
		}
	}
	for _, not := range []string{"hers", canary, "SECRET", "carrel-worker", "HOME=/nonexistent"} {
		if strings.Contains(got.Content, not) {
			t.Errorf("bob sees %q:\n%s", not, got.Content)
		}
	}
	d.stop()
}

func TestUserIDsThatLookAlikeNeverShareADirectory(t *testing.T) {
	d := serve(t, t.TempDir())
	ids := []string{"a/b", "a_b", "A", "a", "..", ".", " a", "ä", "a%2Fb"}
	for _, id := range ids {
		if got := d.script(id, "ls; printf %s \"$SANDBOX_USER_ID\" > mine"); got.Content != "" {
			t.Errorf("%q finds what another user left: %s", id, got.Content)
		}
	}
	for _, id := range ids {
		if got := d.script(id, "cat mine"); got.Content != id {
			t.Errorf("%q reads %q in its own file", id, got.Content)
		}
	}
	d.stop()
}

func TestWorkerKilledInMidRunEndsItAndTheNextMessageWorks(t *testing.T) {
	d := serve(t, t.TempDir())
	run := d.start("ana", "echo going; sleep 1000", "going")
	if err := syscall.Kill(workerOf(d, "ana").PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	e := d.ending(run.RunID)
	if e.Code != protocol.CodeWorkerCrashed || e.Cause == nil || e.Cause.Signal != "SIGKILL" {
		t.Errorf("RUN_ERROR is %+v, want worker_crashed by SIGKILL", e)
	}
	if got, err := d.client.Run(t.Context(), run.RunID); err != nil || got.Status != protocol.StatusFailed {
		t.Errorf("the run is %q, %v", got.Status, err)
	}
	if got := d.script("ana", "echo again"); got.Content != "again\n" {
		t.Errorf("the next message gives %q", got.Content)
	}
	d.stop()
}

func TestKilledDaemonLeavesNoProcessAndItsRunsAreInterrupted(t *testing.T) {
	base := t.TempDir()
	d := serve(t, base)
	run := d.start("ana", "echo going; setsid sleep 1000 & sleep 1000", "going")
	tree := d.tree()
	if len(tree) < 3 {
		t.Fatalf("the daemon's tree is %v: spawner, worker and tool host belong to it", tree)
	}
	if err := d.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = d.cmd.Wait()
	ordeal.AwaitGone(t, tree)

	d = serve(t, base)
	if e := d.ending(run.RunID); e.Code != protocol.CodeInterrupted {
		t.Errorf("RUN_ERROR is %+v, want interrupted", e)
	}
	events := d.events(run.RunID, 0)
	if events[0].Type != protocol.EventRunStarted || len(events) < 3 {
		t.Errorf("the record is %v", events)
	}
	d.stop()
}

func TestReaderThatJoinsInMidRunSeesNoGapAndNoDouble(t *testing.T) {
	d := serve(t, t.TempDir())
	run := d.start("ana", "i=0; while [ $i -lt 2000 ]; do i=$((i+1)); echo line $i; done; sleep 0.2; echo last", "line")
	tail := d.events(run.RunID, 2)
	whole := d.events(run.RunID, 0)
	if len(whole) != len(tail)+2 {
		t.Errorf("%d events from the start, %d after the second", len(whole), len(tail))
	}
	for i, ev := range tail {
		if string(ev.Data) != string(whole[i+2].Data) || !ev.Time.Equal(whole[i+2].Time) {
			t.Errorf("event %d differs between live and replay", ev.Seq)
		}
	}
	d.stop()
}

func TestCancelAndTimeoutEndARunWithTheirOwnCode(t *testing.T) {
	d := serve(t, t.TempDir())
	run := d.start("ana", "echo going; sleep 1000", "going")
	if _, err := d.client.Cancel(t.Context(), run.RunID); err != nil {
		t.Fatal(err)
	}
	if e := d.ending(run.RunID); e.Code != protocol.CodeCanceled {
		t.Errorf("RUN_ERROR is %+v, want canceled", e)
	}
	if got, err := d.client.Run(t.Context(), run.RunID); err != nil || got.Status != protocol.StatusCanceled {
		t.Errorf("the run is %q, %v", got.Status, err)
	}
	status, body := d.post("/v1/execute", `{"user_id":"ana","message":"sleep 1000","config":{"timeout_s":0.3}}`, nil)
	if status != http.StatusGatewayTimeout || !strings.Contains(string(body), `"run_timeout"`) {
		t.Errorf("status %d, %s", status, body)
	}
	d.stop()
}

func TestAnIdempotencyKeyStartsOneRun(t *testing.T) {
	d := serve(t, t.TempDir())
	req := protocol.ExecuteRequest{UserID: "ana", Message: "echo once >> log; cat log"}
	first, err := d.client.Execute(t.Context(), req, client.ExecuteOptions{IdempotencyKey: "k"})
	if err != nil {
		t.Fatal(err)
	}
	second, err := d.client.Execute(t.Context(), req, client.ExecuteOptions{IdempotencyKey: "k"})
	if err != nil || first.RunID != second.RunID {
		t.Errorf("two runs, %s and %s, %v", first.RunID, second.RunID, err)
	}
	d.events(first.RunID, 0)
	d.stop()
}

func TestSIGTERMLetsAGoingRunFinish(t *testing.T) {
	d := serve(t, t.TempDir())
	run := d.start("ana", "echo going; sleep 1; echo finished", "going")
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	var last protocol.Event
	for ev, err := range d.client.Events(t.Context(), run.RunID, 0) {
		if err != nil {
			t.Fatal(err)
		}
		last = ev
	}
	if last.Type != protocol.EventRunFinished {
		t.Errorf("the last event is %s", last.Type)
	}
	if err := d.cmd.Wait(); err != nil {
		t.Errorf("the daemon ended with %v", err)
	}
}

func mustSandboxes(d *daemon) protocol.Sandboxes {
	d.t.Helper()
	all, err := d.client.Sandboxes(d.t.Context())
	if err != nil {
		d.t.Fatal(err)
	}
	return all
}

// workerOf is a user's worker; warm ones, which are nobody's, stand in the list too.
func workerOf(d *daemon, user string) protocol.Sandbox {
	d.t.Helper()
	for _, s := range mustSandboxes(d).Sandboxes {
		if s.UserID == user {
			return s
		}
	}
	d.t.Fatalf("%q has no worker", user)
	return protocol.Sandbox{}
}

func itoa(n int) string {
	b, _ := json.Marshal(n)
	return string(b)
}
