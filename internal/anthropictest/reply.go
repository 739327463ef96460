package anthropictest

import (
	"encoding/json"
	"strings"
	"time"
)

// Reply is one answer: either an error, if Status is set, or a message.
type Reply struct {
	// Status, Error (the API's error type) and Message make an error answer;
	// Header goes with it.
	Status  int
	Error   string
	Message string
	Header  map[string]string

	// Blocks are the message. StopReason is end_turn if empty, or tool_use where
	// there is a tool call.
	Blocks     []Block
	StopReason string
	// Usage of the whole answer; a zero one is made up.
	Usage Usage

	Fault Fault
}

// Fault is what goes wrong with a streamed answer, or is slow about it.
type Fault struct {
	// CutAfter breaks the connection after so many events; 0 does not.
	CutAfter int
	// EndAfter ends the stream after so many events, in order but unfinished.
	EndAfter int
	// Error is sent as an event in place of the message's end, with Message.
	Error, Message string
	// Gap is waited for between two events.
	Gap time.Duration
	// Bytewise writes and flushes every byte by itself.
	Bytewise bool
	// Hold stops before the event that closes the message until it is closed,
	// or the caller has left.
	Hold <-chan struct{}
	// Ping sends a ping event after each event.
	Ping bool
}

// Usage counts tokens as the API does.
type Usage struct {
	InputTokens              int64 `json:"input_tokens"`
	CacheCreationInputTokens int64 `json:"cache_creation_input_tokens"`
	CacheReadInputTokens     int64 `json:"cache_read_input_tokens"`
	OutputTokens             int64 `json:"output_tokens"`
}

// Block is a content block of an answer and the pieces it is streamed in.
type Block struct {
	kind      string
	id, name  string
	signature string
	pieces    []string
}

// Text is a text block.
func Text(pieces ...string) Block { return Block{kind: "text", pieces: pieces} }

// Thinking is a thinking block.
func Thinking(signature string, pieces ...string) Block {
	return Block{kind: "thinking", signature: signature, pieces: pieces}
}

// ToolUse is a call of a tool; the pieces together are its input, and need not
// be valid JSON.
func ToolUse(id, name string, pieces ...string) Block {
	return Block{kind: "tool_use", id: id, name: name, pieces: pieces}
}

func (b Block) whole() string { return strings.Join(b.pieces, "") }

// start is the block as content_block_start shows it.
func (b Block) start() map[string]any {
	switch b.kind {
	case "thinking":
		return map[string]any{"type": b.kind, "thinking": "", "signature": ""}
	case "tool_use":
		return map[string]any{"type": b.kind, "id": b.id, "name": b.name, "input": struct{}{}}
	}
	return map[string]any{"type": b.kind, "text": ""}
}

// deltas are the pieces as content_block_delta shows them.
func (b Block) deltas() []map[string]any {
	names := map[string][2]string{
		"text": {"text_delta", "text"}, "thinking": {"thinking_delta", "thinking"}, "tool_use": {"input_json_delta", "partial_json"},
	}[b.kind]
	deltas := make([]map[string]any, 0, len(b.pieces)+1)
	for _, piece := range b.pieces {
		deltas = append(deltas, map[string]any{"type": names[0], names[1]: piece})
	}
	if b.kind == "thinking" {
		deltas = append(deltas, map[string]any{"type": "signature_delta", "signature": b.signature})
	}
	return deltas
}

// content is the block as an answer in one piece has it.
func (b Block) content() map[string]any {
	c := b.start()
	switch b.kind {
	case "thinking":
		c["thinking"], c["signature"] = b.whole(), b.signature
	case "tool_use":
		if input := json.RawMessage(b.whole()); json.Valid(input) {
			c["input"] = input
		}
	default:
		c["text"] = b.whole()
	}
	return c
}

func (r Reply) stopReason() string {
	if r.StopReason != "" {
		return r.StopReason
	}
	for _, b := range r.Blocks {
		if b.kind == "tool_use" {
			return "tool_use"
		}
	}
	return "end_turn"
}

func (r Reply) usage() Usage {
	if r.Usage != (Usage{}) {
		return r.Usage
	}
	return Usage{InputTokens: 100, OutputTokens: 10}
}

// message is the answer as a message; without content where it is to be streamed.
func (r Reply) message(q *Request, whole bool) map[string]any {
	m := map[string]any{
		"id": "msg_01Scripted", "type": "message", "role": "assistant", "model": q.Model,
		"content": []any{}, "stop_reason": nil, "stop_sequence": nil,
	}
	usage := r.usage()
	if whole {
		content := make([]any, len(r.Blocks))
		for i, b := range r.Blocks {
			content[i] = b.content()
		}
		m["content"], m["stop_reason"] = content, r.stopReason()
	} else {
		usage.OutputTokens = min(usage.OutputTokens, 1)
	}
	m["usage"] = usage
	return m
}

// event is one event of a stream; its data names its type again.
type event struct {
	kind string
	data map[string]any
}

// events are the answer as a stream, from message_start to message_stop.
func (r Reply) events(q *Request) []event {
	events := []event{{"message_start", map[string]any{"message": r.message(q, false)}}}
	for i, b := range r.Blocks {
		events = append(events, event{"content_block_start", map[string]any{"index": i, "content_block": b.start()}})
		for _, d := range b.deltas() {
			events = append(events, event{"content_block_delta", map[string]any{"index": i, "delta": d}})
		}
		events = append(events, event{"content_block_stop", map[string]any{"index": i}})
	}
	if r.Fault.Error != "" {
		return append(events, event{"error", map[string]any{"error": map[string]string{"type": r.Fault.Error, "message": r.Fault.Message}}})
	}
	return append(events,
		event{"message_delta", map[string]any{
			"delta": map[string]any{"stop_reason": r.stopReason(), "stop_sequence": nil},
			"usage": map[string]any{"output_tokens": r.usage().OutputTokens},
		}},
		event{"message_stop", map[string]any{}})
}
