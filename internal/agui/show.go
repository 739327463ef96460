package agui

import (
	"cmp"
	"encoding/json"
	"slices"

	"carrel/protocol"
)

// text continues a message or a reasoning, and opens it where it is not.
func (r *Run) text(kind itemKind, delta string) []Event {
	if delta == "" {
		return nil
	}
	out := r.close(kind)
	if r.open.kind == nothing {
		r.open = item{kind: kind, id: r.newMessage()}
		if kind == text {
			r.answer = r.open.id
			out = append(out, Event{Type: TextMessageStart, MessageID: r.open.id, Role: "assistant"})
		} else {
			r.open.span = r.newMessage()
			out = append(out,
				Event{Type: ReasoningStart, MessageID: r.open.span},
				Event{Type: ReasoningMessageStart, MessageID: r.open.id, Role: "reasoning"})
		}
	}
	content := Event{Type: TextMessageContent, MessageID: r.open.id, Delta: delta}
	if kind == reasoning {
		content.Type = ReasoningMessageContent
	}
	return append(out, content)
}

// close closes what is open, unless it is a text of the kind that goes on.
func (r *Run) close(unless itemKind) []Event {
	if unless != nothing && r.open.kind == unless {
		return nil
	}
	o := r.open
	r.open = item{}
	switch o.kind {
	case text:
		return []Event{{Type: TextMessageEnd, MessageID: o.id}}
	case reasoning:
		return []Event{{Type: ReasoningMessageEnd, MessageID: o.id}, {Type: ReasoningEnd, MessageID: o.span}}
	case toolCall:
		return []Event{{Type: ToolCallEnd, ToolCallID: o.id}}
	case nothing:
	}
	return nil
}

func isCallID(id string) bool { return id != "" && len(id) <= maxToolCallIDBytes }

// startCall opens a tool's call: one that is there already is opened again, as it was.
func (r *Run) startCall(d protocol.ToolCallStart) ([]Event, bool) {
	if !isCallID(d.ID) {
		return nil, false
	}
	out := r.close(nothing)
	c, known := r.calls[d.ID]
	if !known {
		if len(r.calls) >= maxCalls {
			clear(r.calls)
		}
		if r.answer == "" {
			r.answer = r.newMessage() // it holds calls alone
		}
		c = call{name: cmp.Or(d.Name, "unknown"), parent: r.answer}
		r.calls[d.ID] = c
	}
	r.open = item{kind: toolCall, id: d.ID}
	return append(out, Event{Type: ToolCallStart, ToolCallID: d.ID, ToolCallName: c.name, ParentMessageID: c.parent}), true
}

func (r *Run) continueCall(d protocol.ToolCallArgs) (out []Event, ok bool) {
	c, known := r.calls[d.ID]
	if !known {
		return nil, false
	}
	if d.Delta == "" {
		return nil, true
	}
	if r.open.kind != toolCall || r.open.id != d.ID {
		out, _ = r.startCall(protocol.ToolCallStart{ID: d.ID, Name: c.name})
	}
	return append(out, Event{Type: ToolCallArgs, ToolCallID: d.ID, Delta: d.Delta}), true
}

// output tells what a tool prints while it works, for which AG-UI has no event.
func (r *Run) output(d protocol.ToolOutput) ([]Event, bool) {
	if _, known := r.calls[d.ID]; !known {
		return nil, false
	}
	return append(r.close(nothing), Event{Type: Custom, Name: ToolOutput, Value: toolOutput{
		ToolCallID: d.ID, Stream: d.Stream, Text: d.Text,
	}}), true
}

type toolOutput struct {
	ToolCallID string `json:"toolCallId"`
	Stream     string `json:"stream"`
	Text       string `json:"text"`
}

// result is a message of its own; what the assistant says then is another.
func (r *Run) result(d protocol.ToolCallResult) (out []Event, ok bool) {
	if _, known := r.calls[d.ID]; !known {
		// A conversation in which a result answers no call is refused by models.
		if out, ok = r.startCall(protocol.ToolCallStart{ID: d.ID, Name: d.Name}); !ok {
			return nil, false
		}
	}
	out = append(out, r.close(nothing)...)
	r.answer = ""
	e := Event{Type: ToolCallResult, MessageID: r.newMessage(), ToolCallID: d.ID, Role: "tool", Content: &d.Result}
	if d.IsError {
		e.Metadata = &Metadata{failure{IsError: true}}
	}
	return append(out, e), true
}

type failure struct {
	IsError bool `json:"is_error"`
}

func (r *Run) ask(q protocol.ApprovalRequested) ([]Event, bool) {
	if _, known := r.calls[q.ToolCallID]; !known {
		q.ToolCallID = ""
	}
	if len(r.asked) >= maxQuestions {
		return nil, false
	}
	r.asked = append(r.asked, newInterrupt(r.ours, q))
	return r.close(nothing), true
}

// resolve takes an answered question from those that are open.
func (r *Run) resolve(ev protocol.Event) {
	var d protocol.ApprovalResolved
	if json.Unmarshal(ev.Data, &d) != nil {
		return
	}
	id := InterruptID(r.ours, d.ApprovalID)
	r.asked = slices.DeleteFunc(r.asked, func(i Interrupt) bool { return i.ID == id })
}

func (r *Run) resolved(d protocol.ApprovalResolved) ([]Event, bool) {
	id := InterruptID(r.ours, d.ApprovalID)
	r.asked = slices.DeleteFunc(r.asked, func(i Interrupt) bool { return i.ID == id })
	return append(r.close(nothing), Event{Type: Custom, Name: ApprovalResolved, Value: resolution{
		InterruptID: id, Decision: d.Decision, Reason: d.Reason,
	}}), true
}

type resolution struct {
	InterruptID string `json:"interruptId"`
	Decision    string `json:"decision"`
	Reason      string `json:"reason,omitempty"`
}

func (r *Run) finish(d protocol.Result, data json.RawMessage) []Event {
	out := r.close(nothing)
	e := r.finished(Outcome{Type: Success}, d.Usage)
	e.Result = data
	return append(out, e)
}

// fail ends the run as ours did. One that was canceled did not fail.
func (r *Run) fail(d protocol.RunError) []Event {
	used := r.used
	if d.Usage != nil {
		used = *d.Usage
	}
	if d.Code == protocol.CodeCanceled {
		return append(r.close(nothing), r.finished(Outcome{Type: Cancelled}, used))
	}
	out := r.Fail(d.Code, d.Message)
	out[len(out)-1].Usage = usageOf(used, r.told)
	return out
}
