package claude

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"carrel/internal/anthropictest"
	"carrel/protocol"
)

func TestRetryOnlyWhereNothingWasShown(t *testing.T) {
	faulty := func(f anthropictest.Fault) anthropictest.Turn {
		turn := anthropictest.Say("a", "b")
		turn.Reply.Fault = f
		return turn
	}
	with := func(status int, kind string, header map[string]string) anthropictest.Turn {
		return anthropictest.Turn{Reply: anthropictest.Reply{Status: status, Error: kind, Message: "because", Header: header}}
	}
	early := faulty(anthropictest.Fault{Error: "overloaded_error", Message: "Overloaded"})
	early.Reply.Blocks = nil
	for _, test := range []struct {
		name  string
		fault anthropictest.Turn
		again bool
		whole bool          // nothing is amiss
		wait  time.Duration // the least; 0 = none is asked for
		code  protocol.Code
		says  string
	}{
		{name: "rate limit", fault: anthropictest.RateLimited(3), again: true, wait: 3 * time.Second},
		{name: "overloaded", fault: anthropictest.Overloaded(), again: true},
		{name: "server error", fault: with(500, "api_error", nil), again: true},
		{name: "bad gateway without a body of the API", fault: with(502, "", nil), again: true},
		{name: "cut before anything", fault: faulty(anthropictest.Fault{CutAfter: 2}), again: true},
		{name: "ended before anything", fault: faulty(anthropictest.Fault{EndAfter: 1}), again: true},
		{name: "error event before anything", fault: early, again: true},
		{name: "cut in the text", fault: faulty(anthropictest.Fault{CutAfter: 3}), code: protocol.CodeAgentError, says: "the model's answer broke off before its end"},
		{name: "ended in the text", fault: faulty(anthropictest.Fault{EndAfter: 4}), code: protocol.CodeAgentError, says: "the model's answer broke off before its end"},
		{name: "cut after its end", fault: faulty(anthropictest.Fault{CutAfter: 7}), whole: true},
		{name: "error event in the text", fault: faulty(anthropictest.Fault{Error: "overloaded_error", Message: "Overloaded"}), code: protocol.CodeAgentError, says: "Overloaded"},
		{name: "bad request", fault: with(400, "invalid_request_error", nil), code: protocol.CodeAgentError, says: "400 invalid_request_error: because (request req_"},
		{name: "bad key", fault: with(401, "authentication_error", nil), code: protocol.CodeAgentError, says: "401"},
		{name: "told not to", fault: with(529, "overloaded_error", map[string]string{"X-Should-Retry": "false"}), code: protocol.CodeAgentError, says: "529"},
		{name: "told to wait too long", fault: with(429, "rate_limit_error", map[string]string{"Retry-After": "600"}), code: protocol.CodeAgentError, says: "429"},
		{
			name: "no budget", fault: with(http.StatusForbidden, "permission_error", map[string]string{"Carrel-Code": "budget_exceeded"}),
			code: protocol.CodeBudgetExceeded, says: "because",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			script := []anthropictest.Turn{test.fault}
			if test.again {
				script = append(script, anthropictest.Say("ok"))
			}
			g := newRig(t, script...)
			o := g.run(t.Context(), "hi")
			if test.whole {
				if o.err != nil || o.result.Content != "ab" {
					t.Errorf("%v %+v", o.err, o.result)
				}
				return
			}
			if !test.again {
				if protocol.CodeOf(o.err) != test.code || !strings.Contains(o.err.Error(), test.says) || len(g.waits) != 0 {
					t.Errorf("%v after %v, want %s %q", o.err, g.waits, test.code, test.says)
				}
				return
			}
			if o.err != nil || o.result.Content != "ok" || len(g.waits) != 1 {
				t.Fatalf("%v %+v after %v", o.err, o.result, g.waits)
			}
			if test.wait != 0 && g.waits[0] != test.wait || test.wait == 0 && (g.waits[0] < firstBackoff/2 || g.waits[0] > firstBackoff) {
				t.Errorf("waited %v", g.waits)
			}
		})
	}
}

func TestRetriesEnd(t *testing.T) {
	var script []anthropictest.Turn
	for range maxAttempts {
		script = append(script, anthropictest.Overloaded())
	}
	g := newRig(t, script...)
	o := g.run(t.Context(), "hi")
	if protocol.CodeOf(o.err) != protocol.CodeAgentError || !strings.Contains(o.err.Error(), "529 overloaded_error: Overloaded") {
		t.Errorf("%v", o.err)
	}
	for i := 1; i < len(g.waits); i++ {
		if whole := min(firstBackoff<<i, longBackoff); g.waits[i] < whole/2 || g.waits[i] > whole {
			t.Errorf("pause %d is %s", i, g.waits[i])
		}
	}
}

// The caller is told when it may try again itself.
func TestLongRetryAfterIsPassedOn(t *testing.T) {
	o := newRig(t, anthropictest.RateLimited(600)).run(t.Context(), "hi")
	if e, ok := errors.AsType[*protocol.Error](o.err); !ok || e.RetryAfter != 10*time.Minute {
		t.Errorf("%#v", o.err)
	}
}

func TestUnreachableAPI(t *testing.T) {
	g := newRig(t)
	g.server.Close()
	o := g.run(t.Context(), "hi")
	if protocol.CodeOf(o.err) != protocol.CodeAgentError || !strings.Contains(o.err.Error(), "cannot be reached") || len(g.waits) != maxAttempts-1 {
		t.Errorf("%v after %v", o.err, g.waits)
	}
}

func TestSlowBytesAreWaitedFor(t *testing.T) {
	turn := anthropictest.Say("s", "l", "o", "w")
	turn.Reply.Fault = anthropictest.Fault{Bytewise: true, Gap: time.Millisecond}
	if o := newRig(t, turn).ok("hi"); o.result.Content != "slow" {
		t.Errorf("%+v", o.result)
	}
}
