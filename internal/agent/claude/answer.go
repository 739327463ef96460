package claude

import (
	"encoding/json"
	"fmt"
	"strings"

	"carrel/internal/agent/session"
	"carrel/internal/tool"
	"carrel/protocol"
)

// Bounds of one answer. The largest a real model gives has about 300 KB of text
// (64 Ki tokens) and a dozen calls.
const (
	maxAnswerBytes = 4 << 20 // of text and thinking
	maxInputBytes  = 1 << 20 // of one call's input
	maxInputsBytes = 4 << 20 // of all of them, kept
	maxBlocks      = 1024
	maxIDBytes     = 128
)

// answer is one answer of the model, as far as it has come.
type answer struct {
	blocks []*block
	stop   string
	usage  protocol.Usage
	// begun tells that its first event came, whole that its end did, and not just
	// the end of the connection.
	begun, whole bool

	textBytes  int
	inputBytes int
}

// block is a content block of it.
type block struct {
	kind      string // as the API has it: text, thinking, tool_use, …
	text      strings.Builder
	signature string
	id, name  string
	input     []byte
	inputCut  bool            // there was more of it than is taken
	raw       json.RawMessage // of a kind that this package does not know
}

// validName reports whether the API takes name as a tool's: ^[a-zA-Z0-9_-]{1,128}$.
// A regular expression of this would cost every start of a worker more than the
// whole SDK does.
func validName(name string) bool {
	for _, c := range []byte(name) {
		letter := c|0x20 >= 'a' && c|0x20 <= 'z'
		if !letter && (c < '0' || c > '9') && c != '_' && c != '-' {
			return false
		}
	}
	return name != "" && len(name) <= maxIDBytes
}

// invalidName stands in for a name that no later request could have in it.
const invalidName = "invalid_name"

// open begins a block. Blocks come in order, without gaps.
func (a *answer) open(index int64, b *block) error {
	switch {
	case index != int64(len(a.blocks)):
		return malformed("content block %d where %d should begin", index, len(a.blocks))
	case len(a.blocks) == maxBlocks:
		return malformed("more than %d content blocks", maxBlocks)
	}
	if b.kind == "tool_use" {
		if b.id == "" || len(b.id) > maxIDBytes {
			return malformed("a tool call with an id of %d bytes", len(b.id))
		}
		for _, other := range a.calls() {
			if other.id == b.id {
				return malformed("two tool calls with the id %s", b.id)
			}
		}
		if !validName(b.name) {
			b.name = invalidName
		}
	}
	a.blocks = append(a.blocks, b)
	return nil
}

// at is the block that a delta belongs to.
func (a *answer) at(index int64) (*block, error) {
	if index < 0 || index >= int64(len(a.blocks)) {
		return nil, malformed("a delta for content block %d of %d", index, len(a.blocks))
	}
	return a.blocks[index], nil
}

// addText adds to a text or thinking block.
func (a *answer) addText(b *block, text string) error {
	if a.textBytes += len(text); a.textBytes > maxAnswerBytes {
		return protocol.Errorf(protocol.CodeAgentError, "the model's answer is longer than %d bytes", maxAnswerBytes)
	}
	b.text.WriteString(text)
	return nil
}

// addInput adds to a call's input and gives what of the piece is within bounds.
func (a *answer) addInput(b *block, piece string) (kept string) {
	room := min(maxInputBytes-len(b.input), maxInputsBytes-a.inputBytes)
	if len(piece) > room {
		b.inputCut = true
		piece = piece[:room]
	}
	b.input = append(b.input, piece...)
	a.inputBytes += len(piece)
	return piece
}

func malformed(format string, args ...any) error {
	return protocol.Errorf(protocol.CodeAgentError, "the model's answer makes no sense: "+format, args...)
}

// calls are the answer's tool calls, in order.
func (a *answer) calls() []*block {
	var calls []*block
	for _, b := range a.blocks {
		if b.kind == "tool_use" {
			calls = append(calls, b)
		}
	}
	return calls
}

// text is the answer's text.
func (a *answer) text() string {
	var text strings.Builder
	for _, b := range a.blocks {
		if b.kind == "text" {
			text.WriteString(b.text.String())
		}
	}
	return text.String()
}

// content is the answer as the conversation has it from now on: what the API
// would refuse in the next request is left out or made good.
func (a *answer) content() []json.RawMessage {
	var content []json.RawMessage
	for _, b := range a.blocks {
		switch b.kind {
		case "text":
			if b.text.Len() > 0 {
				content = append(content, session.TextBlock(b.text.String()))
			}
		case "thinking":
			if b.signature != "" {
				content = append(content, session.Encode(map[string]string{"type": b.kind, "thinking": b.text.String(), "signature": b.signature}))
			}
		case "tool_use":
			input := json.RawMessage("{}")
			if b.fault() == "" {
				input = b.whole()
			}
			content = append(content, session.Encode(map[string]any{"type": b.kind, "id": b.id, "name": b.name, "input": input}))
		default:
			content = append(content, b.raw)
		}
	}
	return content
}

// contextTokens is how many tokens the conversation has with this answer.
func (a *answer) contextTokens() int64 { return total(a.usage) }

func total(u protocol.Usage) int64 {
	return u.InputTokens + u.OutputTokens + u.CacheReadTokens + u.CacheCreationTokens
}

// whole is a call's input; the API leaves an empty one out of the stream.
func (b *block) whole() json.RawMessage {
	if len(b.input) == 0 {
		return json.RawMessage("{}")
	}
	return b.input
}

// fault tells why a call's input is none.
func (b *block) fault() string {
	if b.inputCut {
		return fmt.Sprintf("its input is longer than the %d bytes that are taken. Do it in several smaller calls.", maxInputBytes)
	}
	var object map[string]json.RawMessage
	if err := json.Unmarshal(b.whole(), &object); err != nil || object == nil {
		return fmt.Sprintf("its input is no JSON object (%v). It began: %s", err, beginning(string(b.input)))
	}
	return ""
}

func (b *block) call() tool.Call { return tool.Call{ID: b.id, Name: b.name, Input: b.whole()} }

// beginning is enough of a text to recognise it by.
func beginning(text string) string {
	const enough = 200
	if len(text) > enough {
		text = text[:enough] + "…"
	}
	return strings.ToValidUTF8(text, "\uFFFD")
}
