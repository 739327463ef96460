package carrel

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"carrel/internal/broker"
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
	// Whatever another run has asked, or will: its ids are its own.
	if err := errors.Join(ask("run_1", "apr_1"), ask("run_2", "apr_1")); err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"apr_1", "", strings.Repeat("x", maxApprovalIDBytes+1)} {
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

// A long run asks a hundred times, and each time is answered.
func TestAnsweredApprovalsDoNotCountAsOpen(t *testing.T) {
	a := newApprovals(time.Minute)
	for i := range 3 * maxOpenApprovals {
		id := strings.Repeat("x", 1+i%100) + strings.Repeat("y", i/100)
		if err := a.ask("run_1", protocol.ApprovalRequested{ApprovalID: id}); err != nil {
			t.Fatalf("question %d: %v", i, err)
		}
		if err := a.answer("run_1", id, protocol.ApprovalDecision{Decision: protocol.Allow}); err != nil {
			t.Fatal(err)
		}
		if _, _, err := a.resolve("run_1", protocol.ApprovalResolved{ApprovalID: id, Decision: protocol.Allow}); err != nil {
			t.Fatal(err)
		}
	}
}

// A hostile worker does what it wants, but cannot make a person's yes of it.
func TestWorkerCannotForgeAnAnswer(t *testing.T) {
	const silent = ""
	for _, c := range []struct{ name, answered, told, want, reason string }{
		{"denied and told as allowed", protocol.Deny, protocol.Allow, protocol.Deny, "a person's"},
		{"not answered and told as allowed", silent, protocol.Allow, protocol.Deny, "the worker's"},
		{"not answered and told as anything", silent, "perhaps", protocol.Deny, "the worker's"},
		{"allowed", protocol.Allow, protocol.Allow, protocol.Allow, "a person's"},
		{"allowed, but the run was canceled", protocol.Allow, protocol.Deny, protocol.Deny, "the worker's"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := &recorder{runID: "run_1", questions: newApprovals(time.Minute)}
			if err := r.correct(t.Context(), &protocol.EventParams{Type: protocol.EventApprovalRequested, Data: []byte(`{"approval_id":"apr_1"}`)}); err != nil {
				t.Fatal(err)
			}
			if c.answered != silent {
				if err := r.questions.answer("run_1", "apr_1", protocol.ApprovalDecision{Decision: c.answered, Reason: "a person's"}); err != nil {
					t.Fatal(err)
				}
			}
			told := func() (*protocol.EventParams, error) {
				ev := &protocol.EventParams{
					Type: protocol.EventApprovalResolved,
					Data: []byte(`{"approval_id":"apr_1","decision":"` + c.told + `","reason":"the worker's"}`),
				}
				return ev, r.correct(t.Context(), ev)
			}
			ev, err := told()
			if err != nil {
				t.Fatal(err)
			}
			got := decode[protocol.ApprovalResolved](t, ev.Data)
			if want := (protocol.ApprovalResolved{ApprovalID: "apr_1", Decision: c.want, Reason: c.reason}); got != want {
				t.Errorf("%+v, want %+v", got, want)
			}
			if _, err := told(); protocol.CodeOf(err) != protocol.CodeWorkerProtocolError {
				t.Errorf("told twice: %v", err)
			}
			if c.answered == silent {
				err := r.questions.answer("run_1", "apr_1", protocol.ApprovalDecision{Decision: protocol.Allow})
				if protocol.CodeOf(err) != protocol.CodeConflict {
					t.Errorf("a yes that the worker did not wait for: %v", err)
				}
			}
		})
	}
	r := &recorder{runID: "run_1", questions: newApprovals(time.Minute)}
	ev := &protocol.EventParams{Type: protocol.EventApprovalResolved, Data: []byte(`{"approval_id":"apr_9","decision":"allow"}`)}
	if err := r.correct(t.Context(), ev); protocol.CodeOf(err) != protocol.CodeWorkerProtocolError {
		t.Errorf("an answer to what nobody asked: %v", err)
	}
}

func TestUsageIsTheBrokersWhateverTheWorkerTells(t *testing.T) {
	meter, ask := newMeter(t, broker.Budget{})
	ask()
	r := &recorder{runID: "run_1", meter: meter}
	ev := &protocol.EventParams{Type: protocol.EventUsage, Data: []byte(`{"input_tokens":1}`)}
	if err := r.correct(t.Context(), ev); err != nil {
		t.Fatal(err)
	}
	if got := decode[protocol.Usage](t, ev.Data); got != onceUsed {
		t.Errorf("%+v, want %+v", got, onceUsed)
	}
}
