package main

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"carrel/internal/anthropictest"
	"carrel/protocol"
)

// Whatever a model says, it is bounded, and the model is told in words what was not
// done.
func TestHostileModelOutputIsBoundedAndReadable(t *testing.T) {
	huge := []string{`{"command":"`}
	for range 160 {
		huge = append(huge, strings.Repeat("x", 64<<10))
	}
	huge = append(huge, `"}`)
	steps := []step{
		{
			message: "say something", answer: "That was a transcript.",
			calls: []anthropictest.Block{bash("t0", "ln -s /home/agent/sessions link; ln -s /etc/passwd there; ls")}, results: []string{"link"},
		},
		{
			message: "be hostile", answer: "I tried.",
			calls: []anthropictest.Block{
				anthropictest.ToolUse("t1", "bash", huge...),
				call("t2", "launch_missiles", map[string]any{"at": "noon"}),
				call("t3", "not a name\x00\x1b[2J", nil),
				anthropictest.ToolUse("t4", "bash", `{"command": "echo `),
				anthropictest.ToolUse("t5", "read", `["a list"]`),
				anthropictest.ToolUse("t6", "read", `{"path": 7}`),
				call("t7", "bash", map[string]any{"command": "echo \x00"}),
			},
			results: []string{
				"!its input is longer than the 1048576 bytes", `!There is no tool "launch_missiles". There are: bash, read`, "!There is no tool",
				"!its input is no JSON object", "!its input is no JSON object", "!path", "!zero byte",
			},
		},
		{
			message: "get out", answer: "I could not.",
			calls: []anthropictest.Block{
				call("u1", "read", map[string]any{"path": "/home/agent/sessions/s.jsonl"}),
				call("u2", "read", map[string]any{"path": "link/s.jsonl"}),
				call("u3", "read", map[string]any{"path": "../home/agent/sessions/s.jsonl"}),
				call("u4", "write", map[string]any{"path": "link/s.jsonl", "content": "forged"}),
				call("u5", "write", map[string]any{"path": "/usr/bin/forged", "content": "forged"}),
				call("u6", "grep", map[string]any{"pattern": "hostile", "path": "link"}),
				bash("u7", "cat /home/agent/sessions/s.jsonl link/s.jsonl /proc/1/root/home/agent/sessions/s.jsonl; ls /proc/1/fd"),
			},
			results: append(slices.Repeat([]string{"!denied by the sandbox"}, 6), "!Permission denied"),
		},
	}
	s := play(t, turns(steps...))
	s.perform("ana", steps)
	for _, q := range s.model.Requests() {
		for _, r := range q.Last().Results() {
			if strings.Contains(r.ResultText(), "be hostile") || strings.Contains(r.ResultText(), `"role"`) {
				t.Errorf("%s reads the transcript: %s", r.ToolUseID, r.ResultText())
			}
		}
	}
	s.stop()
}

func TestEndlessToolCallsEndAtMaxTurns(t *testing.T) {
	calls := 0
	model := anthropictest.New(t, anthropictest.Options{Key: canary, Otherwise: func(*anthropictest.Request) anthropictest.Reply {
		calls++ // one request at a time
		return anthropictest.Reply{Blocks: []anthropictest.Block{anthropictest.Text("Once more."), bash("t"+itoa(calls), "echo again >> log; wc -l < log")}}
	}})
	s := playOn(t, model)
	got := s.say("ana", "for ever", func(r *protocol.ExecuteRequest) { r.Config.MaxTurns = 4 })
	if got.StopReason != "max_turns" || len(got.ToolCalls) != 4 || len(model.Requests()) != 4 {
		t.Errorf("%d requests, %+v", len(model.Requests()), got)
	}
	if last := got.ToolCalls[3]; !last.IsError || got.ToolCalls[2].Result != "3" {
		t.Errorf("the calls: %+v", got.ToolCalls)
	}
	s.stop()
}

// What the model API cannot do now is waited for, as long as nothing of the answer
// was shown; else the run ends with what happened, and its session goes on.
func TestTroubleUpstreamIsWaitedForOrToldInWords(t *testing.T) {
	limited := anthropictest.RateLimited(1)
	overloaded := anthropictest.Fail(529, "overloaded_error", "Overloaded", "0.01")
	cutEarly, cutLate := anthropictest.Say("never"), anthropictest.Say("shown ", "not ", "whole")
	cutEarly.Reply.Fault.CutAfter, cutLate.Reply.Fault.CutAfter = 1, 4
	script := []anthropictest.Turn{
		cutEarly, limited, overloaded, anthropictest.Say("At last."), // one run
		overloaded, overloaded, overloaded, overloaded, overloaded, overloaded, // another, as often as it tries
		cutLate,
		anthropictest.Fail(http.StatusBadRequest, "invalid_request_error", "max_tokens: too many", ""),
		anthropictest.Fail(http.StatusTooManyRequests, "rate_limit_error", "Come back tomorrow", "86400"),
		anthropictest.Say("All is well."),
	}
	s := play(t, script)
	if got := s.say("ana", "first"); got.Content != "At last." || got.StopReason != "end_turn" {
		t.Errorf("%+v", got)
	}
	for _, want := range []string{
		"529 overloaded_error: Overloaded", "the model's answer broke off before its end", "400 invalid_request_error: max_tokens: too many", "429 rate_limit_error: Come back tomorrow",
	} {
		run := s.execute("ana", "again")
		if e := s.ending(run.RunID); e.Code != protocol.CodeAgentError || !strings.Contains(e.Message, want) {
			t.Errorf("%s: RUN_ERROR is %+v", want, e)
		}
	}
	if got := s.say("ana", "last"); got.Content != "All is well." {
		t.Errorf("%+v", got)
	}
	s.stop()
}

func TestBudgetOfARunAndOfAUsersDay(t *testing.T) {
	spend := step{message: "spend", calls: []anthropictest.Block{bash("t1", "true")}, results: []string{""}, answer: "Spent."}
	for name, c := range map[string]struct {
		key    string
		script []anthropictest.Turn
		words  string
	}{
		// An answer is 110 tokens. The second request of one run is one too many.
		"run": {"CARREL_BUDGET_RUN_TOKENS=110", turns(spend)[:1], "the run has used 110 of 110 tokens"},
		// The first run may go on to its end, at 220.
		"day": {"CARREL_BUDGET_USER_DAY_TOKENS=220", turns(spend, step{message: "bob's", answer: "Mine."}), "the user has used 220 of 220 tokens"},
	} {
		t.Run(name, func(t *testing.T) {
			s := play(t, c.script, c.key)
			if name == "day" {
				s.perform("ana", []step{spend})
			}
			run := s.execute("ana", "spend")
			if e := s.ending(run.RunID); e.Code != protocol.CodeBudgetExceeded || !strings.Contains(e.Message, c.words) {
				t.Errorf("RUN_ERROR is %+v", e)
			}
			status, body := s.get("/v1/runs/"+run.RunID, nil)
			if status != http.StatusOK || !strings.Contains(string(body), `"budget_exceeded"`) {
				t.Errorf("status %d, %s", status, body)
			}
			if name == "day" { // another user's is another budget
				s.perform("bob", []step{{message: "bob's", answer: "Mine."}})
			}
			s.stop()
		})
	}
}
