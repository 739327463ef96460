package anthropictest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// Request is one that came, whether or not it was a good one.
type Request struct {
	Header http.Header `json:"-"`
	Body   []byte      `json:"-"`

	Model     string    `json:"model"`
	MaxTokens int       `json:"max_tokens"`
	Stream    bool      `json:"stream"`
	System    []Content `json:"system"`
	Messages  []Message `json:"messages"`
	Tools     []Tool    `json:"tools"`
}

// Message is one message of a request.
type Message struct {
	Role    string    `json:"role"`
	Content []Content `json:"content"`
}

// Content is a content block of a request. Of a tool_result's content there is
// the text, whichever way it was sent.
type Content struct {
	Type         string          `json:"type"`
	Text         string          `json:"text"`
	ID           string          `json:"id"`
	Name         string          `json:"name"`
	Input        json.RawMessage `json:"input"`
	ToolUseID    string          `json:"tool_use_id"`
	IsError      bool            `json:"is_error"`
	Content      json.RawMessage `json:"content"`
	Source       *Source         `json:"source"`
	Thinking     string          `json:"thinking"`
	Signature    string          `json:"signature"`
	CacheControl json.RawMessage `json:"cache_control"`
}

// Source is where an image or a document comes from.
type Source struct {
	Type      string `json:"type"`
	MediaType string `json:"media_type"`
	Data      string `json:"data"`
}

// Tool is a tool that a request offers.
type Tool struct {
	Type         string          `json:"type"`
	Name         string          `json:"name"`
	InputSchema  json.RawMessage `json:"input_schema"`
	CacheControl json.RawMessage `json:"cache_control"`
}

// Last is the request's last message; a zero one if there is none.
func (q *Request) Last() Message {
	if len(q.Messages) == 0 {
		return Message{}
	}
	return q.Messages[len(q.Messages)-1]
}

// Results are the tool results of the message, in order.
func (m Message) Results() []Content {
	return slices.DeleteFunc(slices.Clone(m.Content), func(c Content) bool { return c.Type != "tool_result" })
}

// Text is the text of the message's text blocks.
func (m Message) Text() string {
	var b strings.Builder
	for _, c := range m.Content {
		b.WriteString(c.Text)
	}
	return b.String()
}

// ResultText is the text of a tool result.
func (c Content) ResultText() string {
	var text string
	if json.Unmarshal(c.Content, &text) == nil {
		return text
	}
	var blocks []Content
	if json.Unmarshal(c.Content, &blocks) != nil {
		return ""
	}
	return Message{Content: blocks}.Text()
}

// refuse answers what the real API refuses too, before any model sees it. It
// reads q's body; ok tells that there is nothing to refuse.
func refuse(q *Request, key string) (r Reply, ok bool) {
	if key != "" && q.Header.Get("X-Api-Key") != key {
		return Reply{Status: http.StatusUnauthorized, Error: "authentication_error", Message: "invalid x-api-key"}, false
	}
	if err := json.Unmarshal(q.Body, q); err != nil {
		return invalid("the request body is not valid JSON of this shape: %v", err), false
	}
	if q.Header.Get("Anthropic-Version") == "" {
		return invalid("anthropic-version: header is required"), false
	}
	for name, missing := range map[string]bool{
		"model": q.Model == "", "max_tokens": q.MaxTokens <= 0, "messages": len(q.Messages) == 0,
	} {
		if missing {
			return invalid("%s: Field required", name), false
		}
	}
	if fault := faultOf(q); fault != "" {
		return invalid("%s", fault), false
	}
	return Reply{}, true
}

func invalid(format string, args ...any) Reply {
	return Reply{Status: http.StatusBadRequest, Error: "invalid_request_error", Message: fmt.Sprintf(format, args...)}
}

// maxCacheMarks is the API's limit of cache_control blocks in a request.
const maxCacheMarks = 4

// faultOf holds the conversation against the API's rules: which message may
// follow which, and what a block must have.
func faultOf(q *Request) string {
	marks := 0
	count := func(c json.RawMessage) {
		if len(c) > 0 {
			marks++
		}
	}
	for _, t := range q.Tools {
		count(t.CacheControl)
	}
	for _, c := range q.System {
		count(c.CacheControl)
	}
	var open []string // tool calls that wait for their results
	for i, m := range q.Messages {
		if i == 0 && m.Role != "user" {
			return "messages: first message must use the \"user\" role"
		}
		if len(m.Content) == 0 {
			return fmt.Sprintf("messages.%d: all messages must have non-empty content", i)
		}
		for _, c := range m.Content {
			count(c.CacheControl)
			if fault := blockFault(m.Role, c); fault != "" {
				return fmt.Sprintf("messages.%d: %s", i, fault)
			}
		}
		if fault := pair(&open, m); fault != "" {
			return fmt.Sprintf("messages.%d: %s", i, fault)
		}
	}
	if len(open) > 0 {
		return fmt.Sprintf("`tool_use` ids were found without `tool_result` blocks immediately after: %s", strings.Join(open, ", "))
	}
	if marks > maxCacheMarks {
		return fmt.Sprintf("A maximum of %d blocks with cache_control may be provided. Found %d.", maxCacheMarks, marks)
	}
	return ""
}

// pair takes a message's tool calls and results into account: each call of one
// message is answered in the next one.
func pair(open *[]string, m Message) string {
	waiting := *open
	*open = nil
	for _, c := range m.Content {
		switch c.Type {
		case "tool_use":
			if slices.Contains(*open, c.ID) {
				return "`tool_use` ids must be unique"
			}
			*open = append(*open, c.ID)
		case "tool_result":
			i := slices.Index(waiting, c.ToolUseID)
			if i < 0 {
				return "unexpected `tool_use_id` found in `tool_result` blocks: " + c.ToolUseID
			}
			waiting = slices.Delete(waiting, i, i+1)
		}
	}
	if len(waiting) > 0 {
		return fmt.Sprintf("`tool_use` ids were found without `tool_result` blocks immediately after: %s", strings.Join(waiting, ", "))
	}
	return ""
}

func blockFault(role string, c Content) string {
	switch c.Type {
	case "text":
		if c.Text == "" {
			return "text content blocks must be non-empty"
		}
	case "tool_use":
		if !isObject(c.Input) {
			return "tool_use.input: Input should be a valid dictionary"
		}
		if role != "assistant" || c.ID == "" || c.Name == "" {
			return "tool_use: not allowed here, or without id or name"
		}
	case "tool_result":
		if role != "user" {
			return "`tool_result` blocks can only be in `user` messages"
		}
	case "image", "document":
		if c.Source == nil || c.Source.Data == "" || c.Source.MediaType == "" {
			return c.Type + ".source: Field required"
		}
	case "thinking":
		if c.Signature == "" {
			return "thinking.signature: Field required"
		}
		if len(c.CacheControl) > 0 {
			return "thinking.cache_control: Extra inputs are not permitted"
		}
	case "redacted_thinking":
	default:
		return fmt.Sprintf("Input tag '%s' found using 'type' does not match any of the expected tags", c.Type)
	}
	return ""
}

func isObject(raw json.RawMessage) bool {
	var object map[string]json.RawMessage
	return json.Unmarshal(raw, &object) == nil && object != nil
}
