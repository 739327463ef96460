package main

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"carrel/internal/agui"
	"carrel/protocol"
)

// converse sends a RunAgentInput of the thread "s" and reads the events.
func (d *daemon) converse(messages, resume string) (events []agui.Event) {
	d.t.Helper()
	body := `{"threadId":"s","runId":"r","tools":[],"context":[],"messages":[` + messages + `],"resume":[` + resume + `]}`
	status, answer := d.post("/v1/ag-ui", body, http.Header{"X-Carrel-User": {"ana"}})
	if status != http.StatusOK {
		d.t.Fatalf("status %d: %s", status, answer)
	}
	for frame := range strings.SplitSeq(strings.TrimSuffix(string(answer), "\n\n"), "\n\n") {
		data, ok := strings.CutPrefix(frame, "data: ")
		if !ok {
			continue // a comment
		}
		var e agui.Event
		if err := json.Unmarshal([]byte(data), &e); err != nil {
			d.t.Fatalf("%v: %q", err, frame)
		}
		events = append(events, e)
	}
	return events
}

// interrupted sends a message whose run asks, and returns the interrupt's id.
func (d *daemon) interrupted(message string) string {
	d.t.Helper()
	events := d.converse(`{"id":"1","role":"user","content":"`+message+`"}`, "")
	end := events[len(events)-1]
	if end.Outcome == nil || len(end.Outcome.Interrupts) != 1 {
		d.t.Fatalf("it ends with %+v", end)
	}
	return end.Outcome.Interrupts[0].ID
}

func allowed(id string) string {
	return `{"interruptId":"` + id + `","status":"resolved","payload":{"approved":true}}`
}

// resolutionOf finds what became of a question.
func resolutionOf(t *testing.T, events []agui.Event) string {
	t.Helper()
	for _, e := range events {
		if e.Name == agui.ApprovalResolved {
			told, err := json.Marshal(e.Value)
			if err != nil {
				t.Fatal(err)
			}
			return string(told)
		}
	}
	t.Fatalf("nothing is told of the question: %+v", events)
	return ""
}

const askedBefore = `{"id":"1","role":"user","content":"ask"},{"id":"2","role":"assistant"}`

func TestAGUIInterruptIsStillResumedAfterTheDaemonWasKilled(t *testing.T) {
	script := append(turns(removal("ask", "", ""))[:1], turns(step{message: "still there?", answer: "Yes."})...)
	s := play(t, script, permissions(t, askForRemoval))
	id := s.interrupted("ask")
	s.Kill()
	s.again()
	events := s.converse(askedBefore, allowed(id))
	if told := resolutionOf(t, events); !strings.Contains(told, `"deny"`) {
		t.Errorf("the question ended with %s", told)
	}
	if end := events[len(events)-1]; end.Type != agui.RunError || end.Code != protocol.CodeInterrupted {
		t.Errorf("it ends with %+v", end)
	}
	events = s.converse(askedBefore+`,{"id":"3","role":"user","content":"still there?"}`, "")
	if end := events[len(events)-1]; end.Outcome == nil || end.Outcome.Type != agui.Success {
		t.Errorf("the next message ends with %+v", end)
	}
	s.stop()
}

func TestAGUIInterruptThatTimedOutShowsTheDenial(t *testing.T) {
	s := play(t, turns(removal("ask", "!nobody answered within 1s", "Nobody.")), permissions(t, askForRemoval), "CARREL_APPROVAL_TIMEOUT=1s")
	id := s.interrupted("ask")
	runID, _, _ := strings.Cut(id, ".")
	s.events(runID, 0) // to its end
	events := s.converse(askedBefore, allowed(id))
	if told := resolutionOf(t, events); !strings.Contains(told, `"deny"`) || !strings.Contains(told, "nobody answered within 1s") {
		t.Errorf("the question ended with %s", told)
	}
	if end := events[len(events)-1]; end.Outcome == nil || end.Outcome.Type != agui.Success {
		t.Errorf("it ends with %+v", end)
	}
	s.stop()
}
