package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"carrel/client"
	"carrel/internal/anthropictest"
	"carrel/protocol"
)

// stage is a daemon whose model follows a script. The model takes no key but the
// daemon's, so an answer shows that the broker has put it in.
type stage struct {
	*daemon

	model *anthropictest.Server
	base  string
	env   []string
}

// play starts both. A turn of the script that is never asked for fails the test.
func play(t *testing.T, script []anthropictest.Turn, env ...string) *stage {
	t.Helper()
	return playOn(t, anthropictest.New(t, anthropictest.Options{Script: script, Key: canary}), env...)
}

func playOn(t *testing.T, model *anthropictest.Server, env ...string) *stage {
	t.Helper()
	s := &stage{model: model, base: t.TempDir()}
	s.env = append([]string{
		"SANDBOX_AGENT=claude", "ANTHROPIC_API_KEY=" + canary, "ANTHROPIC_BASE_URL=" + model.URL, "SANDBOX_WARM_WORKERS=0",
	}, env...)
	s.daemon = serve(t, s.base, s.env...)
	return s
}

// again starts a daemon on what the last one left.
func (s *stage) again() { s.daemon = serve(s.t, s.base, s.env...) }

// step is one message of a script: the model calls tools side by side, sees their
// results, and answers.
type step struct {
	message string
	calls   []anthropictest.Block
	// results are parts of what the model must see of each call; one that begins
	// with "!" must be an error.
	results []string
	answer  string
}

// turns are the requests that steps make.
func turns(steps ...step) []anthropictest.Turn {
	var script []anthropictest.Turn
	for _, s := range steps {
		asked := func(q *anthropictest.Request) error {
			if text := q.Last().Text(); text != s.message {
				return fmt.Errorf("the last message is %q, want %q", text, s.message)
			}
			return nil
		}
		last := anthropictest.Say(s.answer)
		if len(s.calls) == 0 {
			last.Expect = asked
			script = append(script, last)
			continue
		}
		last.Expect = func(q *anthropictest.Request) error { return compare(q.Last().Results(), s.results) }
		script = append(script, anthropictest.Turn{Expect: asked, Reply: anthropictest.Reply{Blocks: s.calls}}, last)
	}
	return script
}

func compare(results []anthropictest.Content, want []string) error {
	if len(results) != len(want) {
		return fmt.Errorf("%d results, want %d", len(results), len(want))
	}
	for i, r := range results {
		part, isError := strings.CutPrefix(want[i], "!")
		if r.IsError != isError || !strings.Contains(r.ResultText(), part) {
			return fmt.Errorf("result %d is (error: %v) %q, want (error: %v) %q in it", i, r.IsError, r.ResultText(), isError, part)
		}
	}
	return nil
}

// call is a tool call whose input arrives in two pieces.
func call(id, name string, input map[string]any) anthropictest.Block {
	text, err := json.Marshal(input)
	if err != nil {
		panic(err) // of strings and numbers
	}
	half := len(text) / 2
	return anthropictest.ToolUse(id, name, string(text[:half]), string(text[half:]))
}

func bash(id, command string) anthropictest.Block {
	return call(id, "bash", map[string]any{"command": command})
}

// execute sets a run of the session "s" going.
func (s *stage) execute(user, message string, change ...func(*protocol.ExecuteRequest)) protocol.Run {
	s.t.Helper()
	req := protocol.ExecuteRequest{UserID: user, SessionID: "s", Message: message}
	for _, c := range change {
		c(&req)
	}
	run, err := s.client.Execute(s.t.Context(), req, client.ExecuteOptions{})
	if err != nil {
		s.t.Fatal(err)
	}
	return run
}

// say runs a message that must finish.
func (s *stage) say(user, message string, change ...func(*protocol.ExecuteRequest)) protocol.Result {
	s.t.Helper()
	return s.result(s.execute(user, message, change...).RunID)
}

// perform says the messages of steps, one after the other, and checks the answers.
func (s *stage) perform(user string, steps []step, change ...func(*protocol.ExecuteRequest)) {
	s.t.Helper()
	for _, p := range steps {
		if got := s.say(user, p.message, change...); got.Content != p.answer || len(got.ToolCalls) != len(p.calls) {
			s.t.Errorf("%q gives %+v", p.message, got)
		}
	}
}

// result is what a run gave that must have finished.
func (s *stage) result(runID string) protocol.Result {
	s.t.Helper()
	events := s.events(runID, 0)
	last := events[len(events)-1]
	if last.Type != protocol.EventRunFinished {
		s.t.Fatalf("run %s ends with %s", runID, last.Data)
	}
	return data[protocol.Result](s.t, last)
}

// until reads a run's events after one of them, to the first that holds the text.
func (s *stage) until(runID string, after int64, text string) []protocol.Event {
	s.t.Helper()
	var events []protocol.Event
	for ev, err := range s.client.Events(s.t.Context(), runID, after) {
		if err != nil {
			s.t.Fatal(err)
		}
		events = append(events, ev)
		if strings.Contains(string(ev.Type)+string(ev.Data), text) {
			return events
		}
	}
	s.t.Fatalf("run %s ended without %q: %s", runID, text, events[len(events)-1].Data)
	return nil
}

// data reads an event's data.
func data[T any](t *testing.T, ev protocol.Event) T {
	t.Helper()
	v, err := decode[T](ev)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func decode[T any](ev protocol.Event) (v T, err error) {
	err = json.Unmarshal(ev.Data, &v)
	return v, err
}

// all reads the data of a run's events of one type.
func all[T any](t *testing.T, events []protocol.Event, kind protocol.EventType) []T {
	t.Helper()
	var found []T
	for _, ev := range slices.DeleteFunc(slices.Clone(events), func(ev protocol.Event) bool { return ev.Type != kind }) {
		found = append(found, data[T](t, ev))
	}
	return found
}

// text puts a run's streamed text together.
func text(t *testing.T, events []protocol.Event) string {
	t.Helper()
	var b strings.Builder
	for _, d := range all[protocol.TextDelta](t, events, protocol.EventTextDelta) {
		b.WriteString(d.Text)
	}
	return b.String()
}
