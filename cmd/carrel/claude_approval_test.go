package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"carrel/internal/anthropictest"
	"carrel/protocol"
)

// permissions writes a file of rules and hooks and names it for a daemon.
func permissions(t *testing.T, rules string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "permissions.json")
	if err := os.WriteFile(path, []byte(rules), 0o600); err != nil {
		t.Fatal(err)
	}
	return "CARREL_PERMISSIONS_FILE=" + path
}

const askForRemoval = `{"ask": ["bash(rm *)"]}`

// removal is a message whose run asks whether a file may be removed.
func removal(message, result, answer string) step {
	return step{
		message: message, answer: answer, results: []string{result},
		calls: []anthropictest.Block{bash("t_"+message, "rm -v keep")},
	}
}

// question waits for a run's APPROVAL_REQUESTED.
func (s *stage) question(runID string) (q protocol.ApprovalRequested, seq int64) {
	s.t.Helper()
	events := s.until(runID, 0, string(protocol.EventApprovalRequested))
	last := events[len(events)-1]
	return data[protocol.ApprovalRequested](s.t, last), last.Seq
}

// decision is the one APPROVAL_RESOLVED of a run that has ended.
func (s *stage) decision(runID string) protocol.ApprovalResolved {
	s.t.Helper()
	resolved := all[protocol.ApprovalResolved](s.t, s.events(runID, 0), protocol.EventApprovalResolved)
	if len(resolved) != 1 {
		s.t.Fatalf("APPROVAL_RESOLVED: %+v", resolved)
	}
	return resolved[0]
}

func TestApprovalIsGrantedDeniedOrTimesOut(t *testing.T) {
	place := step{
		message: "make", calls: []anthropictest.Block{bash("t0", "echo kept > keep")}, results: []string{"no output"}, answer: "There.",
	}
	denied := removal("deny", "!denied by a person: not today", "A pity.")
	silent := removal("silent", "!nobody answered within 1s", "Nobody.")
	granted := removal("grant", "removed 'keep'", "Gone.")
	s := play(t, turns(place, denied, silent, granted), permissions(t, askForRemoval), "CARREL_APPROVAL_TIMEOUT=1s")
	s.perform("ana", []step{place})

	run := s.execute("ana", "deny")
	q, _ := s.question(run.RunID)
	if q.Tool != "bash" || q.ToolCallID != "t_deny" || !strings.Contains(string(q.Input), "rm -v keep") || !strings.Contains(q.Reason, "bash(rm *)") || q.ExpiresAt.IsZero() {
		t.Errorf("the question is %+v", q)
	}
	s.approve(run.RunID, q.ApprovalID, protocol.Deny, "not today")
	if got := s.result(run.RunID); got.Content != "A pity." {
		t.Errorf("denied: %+v", got)
	}
	if d := s.decision(run.RunID); d.Decision != protocol.Deny || d.Reason != "not today" {
		t.Errorf("denied: %+v", d)
	}

	run = s.execute("ana", "silent")
	if got := s.result(run.RunID); got.Content != "Nobody." {
		t.Errorf("nobody answered: %+v", got)
	}
	if d := s.decision(run.RunID); d.Decision != protocol.Deny || d.Reason != "nobody answered within 1s" {
		t.Errorf("nobody answered: %+v", d)
	}
	q, _ = s.question(run.RunID)
	err := s.client.Approve(t.Context(), run.RunID, q.ApprovalID, protocol.ApprovalDecision{Decision: protocol.Allow})
	if protocol.CodeOf(err) != protocol.CodeNotFound {
		t.Errorf("an answer that comes too late: %v", err)
	}

	run = s.execute("ana", "grant")
	q, _ = s.question(run.RunID)
	s.approve(run.RunID, q.ApprovalID, protocol.Allow, "")
	if got := s.result(run.RunID); got.Content != "Gone." {
		t.Errorf("granted: %+v", got)
	}
	s.stop()
}

func (s *stage) approve(runID, approvalID, decision, reason string) {
	s.t.Helper()
	err := s.client.Approve(s.t.Context(), runID, approvalID, protocol.ApprovalDecision{Decision: decision, Reason: reason})
	if err != nil {
		s.t.Fatal(err)
	}
}

func TestApprovalOutlivesItsReader(t *testing.T) {
	s := play(t, turns(removal("grant", "!No such file", "Nothing there.")), permissions(t, askForRemoval))
	run := s.execute("ana", "grant")
	q, seen := s.question(run.RunID) // and this reader leaves
	if again, seq := s.question(run.RunID); again.ApprovalID != q.ApprovalID || seq != seen {
		t.Errorf("another reader sees %+v at %d", again, seq)
	}
	s.approve(run.RunID, q.ApprovalID, protocol.Allow, "")
	rest := s.events(run.RunID, seen) // checks that there is no gap
	if rest[0].Type != protocol.EventApprovalResolved || rest[len(rest)-1].Type != protocol.EventRunFinished {
		t.Errorf("the rest of the events is %v", rest)
	}
	s.stop()
}

func TestDaemonKilledWithAnOpenApprovalEndsItAsDenied(t *testing.T) {
	script := append(turns(removal("ask", "", ""))[:1], turns(step{message: "still there?", answer: "Yes."})...)
	s := play(t, script, permissions(t, askForRemoval))
	run := s.execute("ana", "ask")
	q, seen := s.question(run.RunID)
	s.Kill()
	s.again()
	rest := s.events(run.RunID, seen)
	if len(rest) != 2 || rest[0].Type != protocol.EventApprovalResolved || rest[1].Type != protocol.EventRunError {
		t.Fatalf("after the question: %v", rest)
	}
	if d := data[protocol.ApprovalResolved](t, rest[0]); d.ApprovalID != q.ApprovalID || d.Decision != protocol.Deny || d.Reason == "" {
		t.Errorf("the question ended with %+v", d)
	}
	if e := data[protocol.RunError](t, rest[1]); e.Code != protocol.CodeInterrupted {
		t.Errorf("the run ended with %+v", e)
	}
	err := s.client.Approve(t.Context(), run.RunID, q.ApprovalID, protocol.ApprovalDecision{Decision: protocol.Allow})
	if protocol.CodeOf(err) != protocol.CodeNotFound {
		t.Errorf("an answer after that: %v", err)
	}
	if got := s.say("ana", "still there?"); got.Content != "Yes." {
		t.Errorf("the session afterwards: %+v", got)
	}
	s.stop()
}

// However a run ends, its open question ends before it, as denied.
func TestOpenApprovalEndsWithItsRun(t *testing.T) {
	asks := turns(removal("ask", "", ""))[0]
	s := play(t, []anthropictest.Turn{asks, asks, asks}, permissions(t, askForRemoval))
	for _, c := range []struct {
		name string
		end  func(run protocol.Run)
		code protocol.Code
	}{
		{"canceled", func(run protocol.Run) {
			if _, err := s.client.Cancel(t.Context(), run.RunID); err != nil {
				t.Fatal(err)
			}
		}, protocol.CodeCanceled},
		{"its time is up", func(protocol.Run) {}, protocol.CodeRunTimeout},
		{"its worker is killed", func(protocol.Run) {
			if err := syscall.Kill(workerOf(s.daemon, "ana").PID, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}, protocol.CodeWorkerCrashed},
	} {
		run := s.execute("ana", "ask", func(r *protocol.ExecuteRequest) {
			if c.code == protocol.CodeRunTimeout {
				r.Config.TimeoutSeconds = 1
			}
		})
		q, seen := s.question(run.RunID)
		c.end(run)
		rest := s.events(run.RunID, seen)
		resolved := all[protocol.ApprovalResolved](t, rest, protocol.EventApprovalResolved)
		if len(resolved) != 1 || resolved[0].ApprovalID != q.ApprovalID || resolved[0].Decision != protocol.Deny {
			t.Errorf("%s: the question ended with %+v", c.name, resolved)
		}
		if e := data[protocol.RunError](t, rest[len(rest)-1]); e.Code != c.code {
			t.Errorf("%s: the run ended with %+v", c.name, e)
		}
	}
	s.stop()
}
