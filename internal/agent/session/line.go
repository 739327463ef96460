package session

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"time"
)

// Role is who says a message.
type Role string

// The two roles of the Messages API.
const (
	User      Role = "user"
	Assistant Role = "assistant"
)

// Message is one message of a conversation.
type Message struct {
	Role    Role              `json:"role,omitempty"`
	Content []json.RawMessage `json:"content,omitempty"` // blocks
	// Tokens is how many the conversation had up to here, this message included,
	// as the API counted; 0 where it did not.
	Tokens int64 `json:"tokens,omitempty"`
	// Dir is where the session's shell was after this message; "" = as before.
	Dir string `json:"dir,omitempty"`
}

// Line is one line of a transcript: a message, or a summary.
type Line struct {
	Time  time.Time `json:"time"`
	RunID string    `json:"run_id,omitempty"`

	Message

	Summary  string `json:"summary,omitempty"`
	Replaces int    `json:"replaces,omitempty"` // messages from the first on
}

// Block is what this package needs to know of one.
type Block struct {
	Type      string `json:"type"`
	Text      string `json:"text,omitempty"`
	ID        string `json:"id,omitempty"`          // tool_use
	ToolUseID string `json:"tool_use_id,omitempty"` // tool_result
	Content   string `json:"content,omitempty"`     // tool_result
	IsError   bool   `json:"is_error,omitempty"`    // tool_result
}

// AttachmentType is the type of an [AttachmentBlock].
const AttachmentType = "carrel_attachment"

// AttachmentBlock is how a transcript names an attachment. It is no block of the
// model's: what is in the file takes its place when the model is asked.
type AttachmentBlock struct {
	Type      string `json:"type"`
	ID        string `json:"id"`
	MediaType string `json:"media_type"`
}

// Attachments gives the ids of those that a line of a transcript names. Like split it
// keeps nothing of the line's other blocks.
func Attachments(line json.RawMessage) iter.Seq[string] {
	return func(yield func(string) bool) {
		if !bytes.Contains(line, []byte(AttachmentType)) {
			return // Encode writes the type as it is
		}
		var l struct {
			Content json.RawMessage `json:"content"`
		}
		if json.Unmarshal(line, &l) != nil {
			return
		}
		blocks := json.NewDecoder(bytes.NewReader(l.Content))
		if _, err := blocks.Token(); err != nil { // the array's beginning
			return
		}
		for blocks.More() {
			var b AttachmentBlock
			err := blocks.Decode(&b)
			if _, ok := errors.AsType[*json.UnmarshalTypeError](err); err != nil && !ok {
				return
			}
			if b.Type == AttachmentType && !yield(b.ID) {
				return
			}
		}
	}
}

// TextBlock makes a block of text.
func TextBlock(text string) json.RawMessage { return Encode(Block{Type: "text", Text: text}) }

// ResultBlock makes the block that answers a tool call.
func ResultBlock(callID, content string, isError bool) json.RawMessage {
	return Encode(Block{Type: "tool_result", ToolUseID: callID, Content: content, IsError: isError})
}

// Encode is json.Marshal without the escaping of <, > and &, which would make
// one byte of text six of a transcript. It panics at what no JSON can be made of:
// it is for strings, numbers and what was parsed before.
func Encode(v any) json.RawMessage {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic("session: " + err.Error()) // of strings and numbers
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// split takes a transcript apart into lines and looks at each, without a value for
// each element of it: a sandbox may have written it, and of a million elements of two
// bytes the values would take a hundred times as much of the host's memory. A last
// line without its end was torn by a worker that died; whole is how many bytes come
// before it.
func split(data []byte) (lines []json.RawMessage, whole int, err error) {
	for n := 1; ; n++ {
		end := bytes.IndexByte(data[whole:], '\n')
		if end < 0 {
			return lines, whole, nil
		}
		line := data[whole : whole+end]
		var l struct {
			Role     Role     `json:"role"`
			Content  nonEmpty `json:"content"`
			Summary  string   `json:"summary"`
			Replaces int      `json:"replaces"`
		}
		if err := json.Unmarshal(line, &l); err != nil {
			return nil, 0, fmt.Errorf("line %d: %w", n, err)
		}
		if !isLine(l.Role, bool(l.Content), l.Summary, l.Replaces) {
			return nil, 0, fmt.Errorf("line %d: is neither a message with a role and content nor a summary", n)
		}
		lines = append(lines, line)
		whole += end + 1
	}
}

// nonEmpty tells of an array whether there is anything in it, and keeps nothing.
type nonEmpty bool

func (e *nonEmpty) UnmarshalJSON(array []byte) error {
	switch {
	case string(array) == "null":
		*e = false
	case array[0] != '[':
		return errors.New("content is no array")
	default:
		*e = len(bytes.TrimSpace(array[1:len(array)-1])) > 0
	}
	return nil
}

// parse reads a transcript whole: what split takes for lines.
func parse(data []byte) (lines []Line, whole int, err error) {
	texts, whole, err := split(data)
	if err != nil {
		return nil, 0, err
	}
	for n, text := range texts {
		var l Line
		if err := json.Unmarshal(text, &l); err != nil {
			return nil, 0, fmt.Errorf("line %d: %w", n+1, err)
		}
		lines = append(lines, l)
	}
	return lines, whole, nil
}

func isLine(role Role, hasContent bool, summary string, replaces int) bool {
	if summary != "" {
		return role == "" && replaces > 0
	}
	return (role == User || role == Assistant) && hasContent
}

// summaryNote is what the model reads before a summary.
const summaryNote = "This conversation is longer than what fits here. Its beginning, in a summary:\n\n"

// replay makes of lines the conversation that the model is to see.
func replay(lines []Line) ([]Message, error) {
	var messages []Message
	for n, l := range lines {
		if l.Summary == "" {
			messages = append(messages, l.Message)
			continue
		}
		if l.Replaces > len(messages) {
			return nil, fmt.Errorf("line %d: a summary of %d messages where there are %d", n+1, l.Replaces, len(messages))
		}
		messages = summarized(messages, l.Summary, l.Replaces)
	}
	return messages, nil
}

func summarized(messages []Message, summary string, replaces int) []Message {
	head := Message{Role: User, Content: []json.RawMessage{TextBlock(summaryNote + summary)}}
	kept := make([]Message, 0, 1+len(messages)-replaces)
	kept = append(kept, head)
	for _, m := range messages[replaces:] {
		m.Tokens = 0 // counted with what is no longer there
		kept = append(kept, m)
	}
	return kept
}

// lost is what the model is told of a call whose result died with its worker.
const lost = "The worker ended before this tool did: whether it had an effect is not known. Look before you do it again."

// missingResults is the message that is missing where a conversation ends with
// tool calls; ok tells that there is one.
func missingResults(messages []Message) (m Message, ok bool) {
	if len(messages) == 0 || messages[len(messages)-1].Role != Assistant {
		return Message{}, false
	}
	for _, raw := range messages[len(messages)-1].Content {
		var b Block
		if json.Unmarshal(raw, &b) == nil && b.Type == "tool_use" {
			m.Content = append(m.Content, ResultBlock(b.ID, lost, true))
		}
	}
	m.Role = User
	return m, len(m.Content) > 0
}
