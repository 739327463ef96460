package main

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	"carrel/internal/anthropictest"
	"carrel/internal/ordeal"
	"carrel/protocol"
)

// Ten messages of one session through the real programs, with tools side by side in
// the real sandbox: what the model sees of each call is checked in its requests.
func TestTenTurnsWithParallelTools(t *testing.T) {
	steps := []step{
		{message: "hello", answer: "Hello."},
		{
			message: "make files", answer: "Made.",
			calls: []anthropictest.Block{
				// Each waits for the other's file: one after the other they would hang.
				bash("t2a", "until [ -e notes.txt ]; do sleep 0.02; done; echo saw it"),
				call("t2b", "write", map[string]any{"path": "notes.txt", "content": "one\ntwo\nthree\n"}),
				call("t2c", "write", map[string]any{"path": "/workspace/src/main.go", "content": "package main\n\nfunc main() {}\n"}),
			},
			results: []string{"saw it", "notes.txt", "main.go"},
		},
		{
			message: "look", answer: "Seen.",
			calls: []anthropictest.Block{
				call("t3a", "read", map[string]any{"path": "notes.txt", "offset": 2, "limit": 1}),
				call("t3b", "grep", map[string]any{"pattern": `func \w+`}),
				call("t3c", "glob", map[string]any{"pattern": "**/*.go"}),
				bash("t3d", "id -u; pwd"),
			},
			results: []string{"two", "src/main.go", "src/main.go", "1000\n/workspace"},
		},
		{
			message: "change", answer: "Changed.",
			calls:   []anthropictest.Block{call("t4a", "edit", map[string]any{"path": "notes.txt", "old_string": "two", "new_string": "2"})},
			results: []string{"notes.txt"},
		},
		{
			message: "check", answer: "Right.", calls: []anthropictest.Block{bash("t5a", "cat notes.txt; cd src; export GONE=1")},
			results: []string{"one\n2\nthree"},
		},
		{
			message: "the directory stays", answer: "It does.", calls: []anthropictest.Block{bash("t6a", "pwd; echo gone=$GONE")},
			results: []string{"/workspace/src\ngone="},
		},
		{
			message: "errors", answer: "I see.",
			calls: []anthropictest.Block{
				call("t7a", "read", map[string]any{"path": "nowhere"}),
				call("t7b", "edit", map[string]any{"path": "main.go", "old_string": "a", "new_string": "b"}),
				bash("t7c", "echo so; exit 3"),
			},
			results: []string{"!nowhere", "!main.go", "!so\n[the command ended the shell with exit status 3"},
		},
		{
			message: "three commands", answer: "In turn.",
			calls:   []anthropictest.Block{bash("t8a", "echo a >> order"), bash("t8b", "echo b >> order"), bash("t8c", "echo c >> order")},
			results: []string{"no output", "no output", "no output"},
		},
		{
			message: "count", answer: "Three.", calls: []anthropictest.Block{bash("t9a", "sort order | tr -d '\\n'")},
			results: []string{"abc"},
		},
		{message: "bye", answer: "Bye."},
	}
	script := turns(steps...)
	asked := script[len(script)-1].Expect
	script[len(script)-1].Expect = func(q *anthropictest.Request) error {
		if q.Messages[0].Text() != "hello" || q.Messages[1].Text() != "Hello." || len(q.Messages) != 8*4+3 {
			return fmt.Errorf("%d messages, the first %q", len(q.Messages), q.Messages[0].Text())
		}
		return asked(q)
	}
	s := play(t, script)
	s.perform("ana", steps)
	s.stop()
}

func TestUsageIsInTheRunItsEventsAndTheSystem(t *testing.T) {
	script := turns(step{message: "count", calls: []anthropictest.Block{bash("t1", "true")}, results: []string{""}, answer: "Counted."})
	script[0].Reply.Usage = anthropictest.Usage{InputTokens: 1000, CacheCreationInputTokens: 200, OutputTokens: 30}
	script[1].Reply.Usage = anthropictest.Usage{InputTokens: 50, CacheReadInputTokens: 1200, OutputTokens: 7}
	want := protocol.Usage{InputTokens: 1050, OutputTokens: 37, CacheReadTokens: 1200, CacheCreationTokens: 200}
	s := play(t, script)
	events := s.events(s.execute("ana", "count").RunID, 0)
	result := data[protocol.Result](t, events[len(events)-1])
	if result.Usage.CostUSD <= 0 || result.TokensUsed != want.Tokens() {
		t.Errorf("the result tells %d tokens and costs $%g", result.TokensUsed, result.Usage.CostUSD)
	}
	system, err := s.client.System(t.Context())
	if err != nil || system.Usage.Requests != 2 || system.Usage.Usage != result.Usage {
		t.Errorf("/v1/system tells %+v, %v; the run %+v", system.Usage, err, result.Usage)
	}
	told := all[protocol.Usage](t, events, protocol.EventUsage)
	if len(told) != 2 {
		t.Fatalf("USAGE: %+v", told)
	}
	result.Usage.CostUSD, told[1].CostUSD = 0, 0
	if result.Usage != want || told[1] != want {
		t.Errorf("the result tells %+v, the last USAGE %+v, want %+v", result.Usage, told[1], want)
	}
	s.stop()
}

func TestCancelInMidStreamAndTheSessionGoesOn(t *testing.T) {
	script := turns(step{message: "tell", answer: "half of it"}, step{message: "go on", answer: "the rest"})
	script[0].Reply.Fault.Hold = make(chan struct{}) // for ever
	asked := script[1].Expect
	script[1].Expect = func(q *anthropictest.Request) error {
		if len(q.Messages) != 3 || q.Messages[1].Text() != "half of it" {
			return fmt.Errorf("the conversation has %d messages: %+v", len(q.Messages), q.Messages)
		}
		return asked(q)
	}
	s := play(t, script)
	run := s.execute("ana", "tell")
	s.until(run.RunID, 0, "half of it")
	if _, err := s.client.Cancel(t.Context(), run.RunID); err != nil {
		t.Fatal(err)
	}
	if e := s.ending(run.RunID); e.Code != protocol.CodeCanceled {
		t.Errorf("RUN_ERROR is %+v, want canceled", e)
	}
	if got := s.say("ana", "go on"); got.Content != "the rest" {
		t.Errorf("afterwards: %+v", got)
	}
	s.stop()
}

func TestCancelEndsWhatAToolRuns(t *testing.T) {
	script := turns(step{message: "wait", calls: []anthropictest.Block{bash("t1", "echo going; sleep 1000")}})[:1]
	s := play(t, script)
	run := s.execute("ana", "wait")
	s.until(run.RunID, 0, `"text":"going`)
	if _, err := s.client.Cancel(t.Context(), run.RunID); err != nil {
		t.Fatal(err)
	}
	events := s.events(run.RunID, 0)
	if e := data[protocol.RunError](t, events[len(events)-1]); e.Code != protocol.CodeCanceled {
		t.Errorf("RUN_ERROR is %+v, want canceled", e)
	}
	if results := all[protocol.ToolCallResult](t, events, protocol.EventToolCallResult); len(results) != 1 || !results[0].IsError {
		t.Errorf("the call's result: %+v", results)
	}
	got, err := s.client.Exec(t.Context(), "ana", protocol.ExecRequest{Command: protocol.Command{Shell: "pgrep -c sleep"}})
	if err != nil || got.Stdout != "0\n" {
		t.Errorf("sleeps left: %+v, %v", got, err)
	}
	s.stop()
}

func TestWorkerKilledBetweenTurnsAndTheSessionGoesOn(t *testing.T) {
	steps := []step{
		{message: "remember 7", answer: "I will.", calls: []anthropictest.Block{bash("t1", "mkdir -p d; cd d")}, results: []string{"no output"}},
		{message: "what was it?", answer: "7", calls: []anthropictest.Block{bash("t2", "pwd")}, results: []string{"/workspace/d"}},
	}
	script := turns(steps...)
	asked := script[2].Expect
	script[2].Expect = func(q *anthropictest.Request) error {
		if len(q.Messages) != 5 || q.Messages[0].Text() != "remember 7" {
			return fmt.Errorf("the conversation is %+v", q.Messages)
		}
		return asked(q)
	}
	s := play(t, script)
	s.perform("ana", steps[:1])
	killed := workerOf(s.daemon, "ana").PID
	if err := syscall.Kill(killed, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	ordeal.Eventually(t, "the pool knows that the worker is gone", func() bool {
		for _, w := range mustSandboxes(s.daemon).Sandboxes {
			if w.PID == killed {
				return false
			}
		}
		return true
	})
	s.perform("ana", steps[1:])
	s.stop()
}

func TestRunsOfOneSessionTakeTurns(t *testing.T) {
	script := turns(step{message: "first", answer: "one"}, step{message: "second", answer: "two"})
	hold := make(chan struct{})
	script[0].Reply.Fault.Hold = hold
	asked := script[1].Expect
	script[1].Expect = func(q *anthropictest.Request) error {
		if len(q.Messages) != 3 || q.Messages[1].Text() != "one" {
			return fmt.Errorf("the second run does not see the first: %+v", q.Messages)
		}
		return asked(q)
	}
	s := play(t, script)
	first := s.execute("ana", "first")
	s.until(first.RunID, 0, `"one"`)
	second := s.execute("ana", "second")
	s.until(second.RunID, 0, string(protocol.EventRunStarted))
	if n := len(s.model.Requests()); n != 1 {
		t.Errorf("%d requests while the first run goes", n)
	}
	close(hold)
	if a, b := s.result(first.RunID), s.result(second.RunID); a.Content != "one" || b.Content != "two" {
		t.Errorf("%+v, %+v", a, b)
	}
	s.stop()
}

// A tool host takes a processor's time to start. Before a model is asked nobody needs
// one, and while it still writes its first call there is time.
func TestToolHostIsStartedWhenTheFirstCallBegins(t *testing.T) {
	script := turns(
		step{message: "talk", answer: "words"},
		step{message: "work", calls: []anthropictest.Block{bash("t1", "echo done")}, results: []string{"done"}, answer: "Worked."},
	)
	talking, calling := make(chan struct{}), make(chan struct{})
	script[0].Reply.Fault.Hold, script[1].Reply.Fault.Hold = talking, calling
	s := play(t, script)
	run := s.execute("ana", "talk")
	s.until(run.RunID, 0, "words")
	worker := workerOf(s.daemon, "ana").PID
	if hosts := ordeal.Children(worker); len(hosts) > 0 {
		t.Errorf("a run that calls no tool has the processes %v", hosts)
	}
	close(talking)
	s.result(run.RunID)
	run = s.execute("ana", "work")
	ordeal.Eventually(t, "a tool host is there before the call is whole", func() bool { return len(ordeal.Children(worker)) == 1 })
	close(calling)
	s.result(run.RunID)
	s.stop()
}

func TestStreamIsCompleteAndInOrder(t *testing.T) {
	var pieces []string
	for i := range 2000 {
		pieces = append(pieces, fmt.Sprint(i, " "))
	}
	s := play(t, []anthropictest.Turn{anthropictest.Say(pieces...)})
	events := s.events(s.execute("ana", "flood").RunID, 0)
	if got := text(t, events); got != strings.Join(pieces, "") {
		t.Errorf("the text is not what was sent: %d bytes, %.200s…", len(got), got)
	}
	if n := len(all[protocol.TextDelta](t, events, protocol.EventTextDelta)); n != len(pieces) {
		t.Errorf("%d deltas came of %d", n, len(pieces))
	}
	s.stop()
}
