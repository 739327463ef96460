package carrel

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"carrel/protocol"
)

func TestApprovalIsWhatThePersonSays(t *testing.T) {
	for _, decision := range []string{protocol.Allow, protocol.Deny} {
		synctest.Test(t, func(t *testing.T) {
			a := newApprovals(time.Minute)
			if err := a.ask("run_1", protocol.ApprovalRequested{ApprovalID: "apr_1"}); err != nil {
				t.Fatal(err)
			}
			go func() {
				<-time.After(30 * time.Second)
				if err := a.answer("run_1", "apr_1", protocol.ApprovalDecision{Decision: decision, Reason: "why"}); err != nil {
					t.Error(err)
				}
			}()
			got, err := a.await(t.Context(), protocol.ApproveParams{RunID: "run_1", ApprovalID: "apr_1"})
			if err != nil || got.Decision != decision || got.Reason != "why" {
				t.Errorf("%+v, %v", got, err)
			}
			if err := a.answer("run_1", "apr_1", protocol.ApprovalDecision{Decision: decision}); err != nil {
				t.Errorf("the same answer again: %v", err)
			}
			other := protocol.Allow
			if decision == other {
				other = protocol.Deny
			}
			if err := a.answer("run_1", "apr_1", protocol.ApprovalDecision{Decision: other}); protocol.CodeOf(err) != protocol.CodeConflict {
				t.Errorf("another answer: %v", err)
			}
		})
	}
}

func TestSilenceDenies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newApprovals(5 * time.Minute)
		if err := a.ask("run_1", protocol.ApprovalRequested{ApprovalID: "apr_1"}); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		got, err := a.await(t.Context(), protocol.ApproveParams{RunID: "run_1", ApprovalID: "apr_1"})
		if err != nil || got.Decision != protocol.Deny || !strings.Contains(got.Reason, "5m0s") {
			t.Errorf("%+v, %v", got, err)
		}
		if took := time.Since(began); took != 5*time.Minute {
			t.Errorf("it took %s", took)
		}
		if err := a.answer("run_1", "apr_1", protocol.ApprovalDecision{Decision: protocol.Allow}); protocol.CodeOf(err) != protocol.CodeConflict {
			t.Errorf("an answer that comes too late: %v", err)
		}
	})
}

func TestApprovalOfAnotherRunIsNotFound(t *testing.T) {
	a := newApprovals(time.Minute)
	if err := a.ask("run_1", protocol.ApprovalRequested{ApprovalID: "apr_1"}); err != nil {
		t.Fatal(err)
	}
	allow := protocol.ApprovalDecision{Decision: protocol.Allow}
	for _, wrong := range [][2]string{{"run_2", "apr_1"}, {"run_1", "apr_2"}, {"", ""}} {
		if err := a.answer(wrong[0], wrong[1], allow); protocol.CodeOf(err) != protocol.CodeNotFound {
			t.Errorf("answer %q: %v", wrong, err)
		}
		if _, err := a.await(t.Context(), protocol.ApproveParams{RunID: wrong[0], ApprovalID: wrong[1]}); protocol.CodeOf(err) != protocol.CodeNotFound {
			t.Errorf("await %q: %v", wrong, err)
		}
	}
	a.forget("run_1")
	if err := a.answer("run_1", "apr_1", allow); protocol.CodeOf(err) != protocol.CodeNotFound {
		t.Errorf("an answer to an ended run: %v", err)
	}
}

func TestWorkerCannotAskTwiceByOneIDOrWithoutEnd(t *testing.T) {
	a := newApprovals(time.Minute)
	ask := func(run, id string) error { return a.ask(run, protocol.ApprovalRequested{ApprovalID: id}) }
	if err := errors.Join(ask("run_1", "apr_1"), ask("run_2", "apr_2")); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"apr_1", "apr_2", ""} {
		if err := ask("run_1", id); protocol.CodeOf(err) != protocol.CodeWorkerProtocolError {
			t.Errorf("%q again: %v", id, err)
		}
	}
	for i := range maxOpenApprovals - 1 {
		if err := ask("run_1", strings.Repeat("x", i+1)); err != nil {
			t.Fatal(err)
		}
	}
	if err := ask("run_1", "one more"); protocol.CodeOf(err) != protocol.CodeWorkerProtocolError {
		t.Errorf("one too many: %v", err)
	}
}

func TestCanceledRunDoesNotWaitForAnAnswer(t *testing.T) {
	a := newApprovals(time.Hour)
	if err := a.ask("run_1", protocol.ApprovalRequested{ApprovalID: "apr_1"}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("enough")
	cancel(cause)
	if _, err := a.await(ctx, protocol.ApproveParams{RunID: "run_1", ApprovalID: "apr_1"}); !errors.Is(err, cause) {
		t.Errorf("await: %v", err)
	}
}
