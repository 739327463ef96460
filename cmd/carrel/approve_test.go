package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"strings"
	"testing"

	"carrel/protocol"
)

// decider is a backend that takes decisions.
type decider struct {
	backend

	decided chan protocol.ApprovalDecision
}

func (d decider) Approve(_ context.Context, _, _ string, decision protocol.ApprovalDecision) error {
	d.decided <- decision
	return nil
}

func question(t *testing.T) protocol.Event {
	t.Helper()
	data, err := json.Marshal(protocol.ApprovalRequested{
		ApprovalID: "apr_1", Tool: "bash", Input: json.RawMessage(`{"command":"rm -rf \u001b[2Jx"}`), Reason: "rule bash(rm *)",
	})
	if err != nil {
		t.Fatal(err)
	}
	return protocol.Event{RunID: "run_1", Type: protocol.EventApprovalRequested, Data: data}
}

func TestTerminalDecidesAnApproval(t *testing.T) {
	for typed, want := range map[string]string{
		"y\n": protocol.Allow, "YES\n": protocol.Allow, "n\n": protocol.Deny, "\n": protocol.Deny, "yoo\n": protocol.Deny, "y": protocol.Allow,
	} {
		var stderr bytes.Buffer
		d := decider{decided: make(chan protocol.ApprovalDecision, 1)}
		q := &questions{b: d, screen: newScreen(&output{stdout: io.Discard, stderr: &stderr}, true), terminal: strings.NewReader(typed), asked: make(chan protocol.ApprovalRequested, 1)}
		if err := q.ask(t.Context(), question(t)); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			q.serve(ctx, "run_1")
		}()
		if got := <-d.decided; got.Decision != want {
			t.Errorf("%q: %s", typed, got.Decision)
		}
		cancel()
		<-ended
		if text := stderr.String(); strings.Contains(text, "\x1b") || !strings.Contains(text, "rm -rf") || !strings.Contains(text, "rule bash(rm *)") {
			t.Errorf("the question is %q", text)
		}
	}
}

func TestWithoutATerminalAnApprovalIsDeniedUnlessADaemonCanBeAnswered(t *testing.T) {
	var stderr bytes.Buffer
	d := decider{decided: make(chan protocol.ApprovalDecision, 1)}
	q := &questions{b: d, screen: newScreen(&output{stdout: io.Discard, stderr: &stderr}, true)}
	if err := q.ask(t.Context(), question(t)); err != nil {
		t.Fatal(err)
	}
	if got := <-d.decided; got.Decision != protocol.Deny || !strings.Contains(got.Reason, "no terminal") {
		t.Errorf("%+v", got)
	}
	q.isDaemon = true
	if err := q.ask(t.Context(), question(t)); err != nil {
		t.Fatal(err)
	}
	if len(d.decided) > 0 || !strings.Contains(stderr.String(), "apr_1 of run run_1") {
		t.Errorf("decided %d, told %q", len(d.decided), stderr.String())
	}
}

func TestModelsLastLineGetsItsEndAndAScriptsOutputIsLeftAlone(t *testing.T) {
	for data, want := range map[string]string{
		`{"content":"done"}`:                     "\n",
		`{"content":"done\n"}`:                   "",
		`{"content":""}`:                         "",
		`{"content":"no newline","exit_code":0}`: "",
	} {
		var stdout bytes.Buffer
		ev := protocol.Event{Type: protocol.EventRunFinished, Data: json.RawMessage(data)}
		if err := (&teller{screen: newScreen(&output{stdout: &stdout, stderr: io.Discard}, true)}).show(ev); err != nil || stdout.String() != want {
			t.Errorf("%s: %q, %v", data, stdout.String(), err)
		}
	}
}

// Whoever is asked must see what is asked for. All of an event but its type is a
// worker's text, and a terminal obeys it.
func TestQuestionCannotWriteOverItself(t *testing.T) {
	const hostile = "read\x1b[2J\u202e\u009b1A\nallow"
	data, err := json.Marshal(protocol.ApprovalRequested{
		ApprovalID: hostile, Tool: hostile, Reason: "\u2066\x1b", Input: json.RawMessage(`{"command":"\u202Ex"}`),
	})
	if err != nil {
		t.Fatal(err)
	}
	asked := protocol.Event{RunID: "run_1", Type: protocol.EventApprovalRequested, Data: data}
	var stderr bytes.Buffer
	screen := newScreen(&output{stdout: io.Discard, stderr: &stderr}, true)
	if err := (&questions{screen: screen, isDaemon: true}).ask(t.Context(), asked); err != nil {
		t.Fatal(err)
	}
	if text := stderr.String(); strings.Count(text, "\n") != 1 {
		t.Errorf("%q", text)
	}
	d := decider{decided: make(chan protocol.ApprovalDecision, 1)}
	q := &questions{b: d, screen: screen, terminal: strings.NewReader("n\n"), asked: make(chan protocol.ApprovalRequested, 1)}
	if err := q.ask(t.Context(), asked); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		q.serve(ctx, "run_1")
	}()
	<-d.decided
	cancel()
	<-ended
	for _, ev := range []protocol.Event{
		{Type: protocol.EventToolCallResult, Data: []byte(`{"name":"\u001b[1A","result":"x"}`)},
		{Type: protocol.EventApprovalResolved, Data: []byte(`{"decision":"\u001b","reason":"\u001b"}`)},
	} {
		if err := (&teller{screen: screen}).show(ev); err != nil {
			t.Fatal(err)
		}
	}
	if text := stderr.String(); strings.ContainsAny(text, "\x1b\u202e\u009b\u2066") {
		t.Errorf("a terminal is sent %q", text)
	}
}
