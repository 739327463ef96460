package agui

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// rules holds a stream of one run to what AG-UI's own client verifies, and to which
// fields an event must have.
type rules struct {
	begun, ended bool
	open         map[string]bool // by kind and id
	last         map[string]any
}

// required are the fields of each event, as AG-UI's schema has them.
var required = map[string][]string{
	RunStarted: {"threadId", "runId", "protocolVersion"}, RunFinished: {"threadId", "runId", "outcome"}, RunError: {"message"},
	TextMessageStart: {"messageId", "role"}, TextMessageContent: {"messageId", "delta"}, TextMessageEnd: {"messageId"},
	ReasoningStart: {"messageId"}, ReasoningMessageStart: {"messageId", "role"}, ReasoningMessageContent: {"messageId", "delta"},
	ReasoningMessageEnd: {"messageId"}, ReasoningEnd: {"messageId"},
	ToolCallStart: {"toolCallId", "toolCallName", "parentMessageId"}, ToolCallArgs: {"toolCallId", "delta"}, ToolCallEnd: {"toolCallId"},
	ToolCallResult: {"messageId", "toolCallId", "content"}, MessagesSnapshot: {"messages"}, Custom: {"name", "value"}, Raw: {"event"},
}

// lanes are what opens, what continues and what closes.
var lanes = []struct{ id, start, more, end string }{
	{"messageId", TextMessageStart, TextMessageContent, TextMessageEnd},
	{"messageId", ReasoningMessageStart, ReasoningMessageContent, ReasoningMessageEnd},
	{"messageId", ReasoningStart, "", ReasoningEnd},
	{"toolCallId", ToolCallStart, ToolCallArgs, ToolCallEnd},
}

// take looks at an event as it goes over the line.
func (r *rules) take(e Event) error {
	frame, err := AppendFrame(nil, e)
	if err != nil {
		return err
	}
	line, isData := strings.CutPrefix(string(frame), "data: ")
	line, isWhole := strings.CutSuffix(line, "\n\n")
	if !isData || !isWhole || strings.ContainsAny(line, "\r\n") {
		return fmt.Errorf("not one frame: %q", frame)
	}
	var fields map[string]any
	if err := json.Unmarshal([]byte(line), &fields); err != nil {
		return err
	}
	for _, name := range required[e.Type] {
		if _, ok := fields[name]; !ok {
			return fmt.Errorf("%s has no %s: %s", e.Type, name, line)
		}
	}
	if required[e.Type] == nil {
		return fmt.Errorf("an unknown event %s", line)
	}
	r.last = fields
	return r.order(e.Type, fields)
}

func (r *rules) order(kind string, fields map[string]any) error {
	switch {
	case r.ended:
		return fmt.Errorf("%s after the end", kind)
	case !r.begun && kind != RunStarted && kind != RunError:
		return fmt.Errorf("%s before RUN_STARTED", kind)
	case r.begun && kind == RunStarted:
		return errors.New("RUN_STARTED twice")
	}
	r.begun = true
	if r.open == nil {
		r.open = make(map[string]bool)
	}
	for _, lane := range lanes {
		id, _ := fields[lane.id].(string)
		key := lane.start + " " + id
		switch {
		case kind == lane.start && r.open[key]:
			return fmt.Errorf("%s is open already", key)
		case kind == lane.start:
			r.open[key] = true
		case (kind == lane.more || kind == lane.end) && !r.open[key]:
			return fmt.Errorf("%s where nothing is open: %v", kind, fields)
		case kind == lane.end:
			delete(r.open, key)
		}
	}
	r.ended = kind == RunFinished || kind == RunError
	if r.ended && len(r.open) > 0 {
		return fmt.Errorf("%s while open: %v", kind, r.open)
	}
	return nil
}

// took checks all events of a list.
func (r *rules) took(events []Event) error {
	for _, e := range events {
		if err := r.take(e); err != nil {
			return err
		}
	}
	return nil
}

// wire is a stream as it goes over the line, without what tells when it was.
func wire(events []Event) string {
	var b []byte
	for _, e := range events {
		e.Timestamp = 0
		b, _ = AppendFrame(b, e)
	}
	return string(bytes.TrimSpace(b))
}
