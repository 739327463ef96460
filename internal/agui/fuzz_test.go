package agui

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"carrel/protocol"
)

// kinds are what a fuzzed run is made of: three bytes an event.
var kinds = []protocol.EventType{
	protocol.EventTextDelta, protocol.EventThinkingDelta, protocol.EventToolCallStart, protocol.EventToolCallArgs,
	protocol.EventToolOutput, protocol.EventToolCallResult, protocol.EventApprovalRequested, protocol.EventApprovalResolved,
	protocol.EventUsage, protocol.EventRunStarted, protocol.EventRunFinished, protocol.EventRunError, "NEW",
}

// events reads bytes as events of a worker that may do anything; text is in most.
func events(script []byte, text string) (all []protocol.Event) {
	for i := 0; i+2 < len(script) && len(all) < 200; i += 3 {
		kind, id := kinds[int(script[i])%len(kinds)], fmt.Sprint(script[i+1]%4)
		if id == "0" && script[i+1] > 127 {
			id = text
		}
		data, err := json.Marshal(map[string]any{
			"id": id, "name": text, "text": text, "delta": text, "result": text, "stream": text, "message": text, "content": text,
			"approval_id": id, "tool_call_id": id, "tool": text, "input": map[string]string{"x": text}, "decision": "deny", "reason": text,
			"expires_at": "2026-01-02T03:04:05Z", "input_tokens": int(script[i+2]), "output_tokens": int(script[i+2]) - 100,
			"code": []protocol.Code{protocol.CodeCanceled, protocol.CodeAgentError}[script[i+2]%2],
		})
		if err != nil {
			panic(err)
		}
		if script[i+2] == 255 {
			data = []byte("{\n" + text)
		}
		all = append(all, protocol.Event{RunID: ours, Seq: int64(len(all) + 1), Type: kind, Data: data})
	}
	return all
}

// FuzzEvents shows any events, every prefix of them, and ends each as the handler
// would: the stream keeps AG-UI's rules.
func FuzzEvents(f *testing.F) {
	f.Add([]byte{9, 0, 0, 1, 0, 0, 0, 0, 0, 2, 1, 0, 3, 1, 0, 8, 0, 9, 6, 1, 0, 6, 2, 0, 7, 1, 0, 7, 2, 0, 4, 1, 0, 5, 1, 0, 10, 0, 0}, "x")
	f.Add([]byte{2, 1, 0, 2, 1, 0, 3, 1, 0, 5, 2, 0, 3, 1, 0, 3, 3, 0, 11, 0, 1, 0, 0, 0}, "a\r\n\r\nb\u2028c\xff\x00")
	f.Add([]byte{6, 1, 0, 10, 0, 0, 0, 0, 255, 6, 1, 0}, "")
	f.Add([]byte{2, 128, 0, 3, 128, 0, 5, 128, 0, 12, 1, 1}, "data: {}\n\n")
	f.Fuzz(func(t *testing.T, script []byte, text string) {
		all := events(script, text)
		for n := range len(all) + 1 {
			r := NewRun("s", "r", ours)
			check := &rules{}
			if err := check.took(append([]Event{r.Begin(nil)}, takeAll(r, all[:n])...)); err != nil {
				t.Fatalf("after %d events: %v", n, err)
			}
			var end []Event
			if waits, _ := r.Waits(); waits {
				end = []Event{r.Interrupt()}
			} else if !r.Ended() {
				end = r.Fail(protocol.CodeInternal, text)
			}
			if err := check.took(end); err != nil || !check.ended {
				t.Fatalf("ended after %d events: %v (%v)", n, err, check.ended)
			}
		}
	})
}

// FuzzResume stops a run at each question and goes on from there: together the AG-UI
// runs show what one shows that is never stopped.
func FuzzResume(f *testing.F) {
	f.Add([]byte{0, 0, 0, 2, 1, 0, 6, 1, 0, 6, 2, 0, 4, 1, 0, 7, 2, 0, 0, 0, 0, 7, 1, 0, 5, 1, 0, 10, 0, 0})
	f.Add([]byte{6, 1, 0, 7, 1, 0, 6, 2, 0, 8, 0, 7, 7, 2, 0, 11, 0, 1})
	f.Fuzz(func(t *testing.T, script []byte) {
		all := lawful(events(script, "x"))
		want := takeAll(NewRun("s", "r", ours), all)
		var got []Event
		var answered []string
		r := NewRun("s", "r", ours)
		for i := 0; i < len(all); i++ {
			got = append(got, r.Take(all[i])...)
			if waits, _ := r.Waits(); !waits || (i+int(script[0]))%3 > 0 {
				continue
			}
			var ids []string
			for _, interrupt := range r.Interrupt().Outcome.Interrupts {
				ids = append(ids, interrupt.ID)
			}
			answered = append(answered, ids...)
			i = lastAsked(all[:i+1], ids)
			r = NewRun("s", "r", ours)
			takeAll(r, all[:i+1])
			r.Resume(answered) // here they need not be resolved in the record by now
		}
		for _, events := range [][]Event{want, got} {
			for i := range events {
				events[i].Usage = nil // each tells its own
			}
		}
		// Behind a question that is never answered one run shows nothing more.
		if len(got) < len(want) || wire(want) != wire(got[:len(want)]) {
			t.Errorf("in one run and in several:\n%s", cmp.Diff(wire(want), wire(got)))
		}
	})
}

func lastAsked(events []protocol.Event, ids []string) (at int) {
	for i, ev := range events {
		var q protocol.ApprovalRequested
		if ev.Type == protocol.EventApprovalRequested && json.Unmarshal(ev.Data, &q) == nil && slices.Contains(ids, InterruptID(ours, q.ApprovalID)) {
			at = i
		}
	}
	return at
}

// lawful drops what the host would not have stored: questions with an id of another,
// answers to none, and whatever comes after an ending.
func lawful(events []protocol.Event) (all []protocol.Event) {
	asked := map[string]bool{}
	for _, ev := range events {
		var q struct {
			ID string `json:"approval_id"`
		}
		isAsked, isAnswered := ev.Type == protocol.EventApprovalRequested, ev.Type == protocol.EventApprovalResolved
		if (isAsked || isAnswered) && json.Unmarshal(ev.Data, &q) != nil {
			continue
		}
		open, known := asked[q.ID]
		if isAsked && known || isAnswered && !open {
			continue
		}
		if isAsked || isAnswered {
			asked[q.ID] = isAsked
		}
		if all = append(all, ev); ev.Type.Ends() {
			break
		}
	}
	return all
}

// FuzzReadInput reads any body. What comes of it is as the rest relies on.
func FuzzReadInput(f *testing.F) {
	for _, seed := range []string{
		`{"threadId":"t","runId":"r","messages":[{"id":"1","role":"user","content":"hi"}],"tools":[],"context":[],"state":{},"forwardedProps":{}}`,
		`{"threadId":"t","runId":"r","messages":[{"id":"1","role":"user","content":[{"type":"text","text":"a"},{"type":"document","source":{"type":"file","provider":"carrel","value":"file_1"}},{"type":"image"}]},{"id":"2","role":"assistant"}],"tools":[1]}`,
		`{"threadId":"t","runId":"r","messages":[],"resume":[{"interruptId":"run_1.apr_1","status":"resolved","payload":{"approved":true}},{"interruptId":"x","status":"cancelled"}],"forwardedProps":{"carrel":{"config":{}}}}`,
		`{"threadId":"..","runId":"r"}`, `{"threadId":"t","threadId":"u"}`, `[]`, ``, `{"a":{"b":[`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		in, err := ReadInput(body)
		if err != nil {
			if code := protocol.CodeOf(err); code != protocol.CodeInvalidRequest && code != protocol.CodeTooLarge {
				t.Errorf("the error is %v", err)
			}
			return
		}
		if protocol.CheckSessionID(in.ThreadID) != nil || in.RunID == "" {
			t.Errorf("%q, %q", in.ThreadID, in.RunID)
		}
		for _, a := range in.Resume {
			if a.Decision.Decision != protocol.Allow && a.Decision.Decision != protocol.Deny {
				t.Errorf("an answer decides %q", a.Decision.Decision)
			}
		}
		if in.Message != nil {
			again, err := ReadInput(body)
			if err != nil || in.Key("u") != again.Key("u") {
				t.Errorf("the same request has another key: %v", err)
			}
			check := &rules{begun: true}
			if err := check.take(Event{Type: MessagesSnapshot, Messages: in.Message.UpToHere}); err != nil {
				t.Error(err)
			}
		}
	})
}
