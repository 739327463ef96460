package agui

import (
	"bytes"
	"encoding/json"
	"fmt"

	"carrel/protocol"
)

// Version is the version of the protocol.
const Version = "1.0"

// The events that are sent. A producer need not send all there are.
const (
	RunStarted              = "RUN_STARTED"
	RunFinished             = "RUN_FINISHED"
	RunError                = "RUN_ERROR"
	TextMessageStart        = "TEXT_MESSAGE_START"
	TextMessageContent      = "TEXT_MESSAGE_CONTENT"
	TextMessageEnd          = "TEXT_MESSAGE_END"
	ReasoningStart          = "REASONING_START"
	ReasoningMessageStart   = "REASONING_MESSAGE_START"
	ReasoningMessageContent = "REASONING_MESSAGE_CONTENT"
	ReasoningMessageEnd     = "REASONING_MESSAGE_END"
	ReasoningEnd            = "REASONING_END"
	ToolCallStart           = "TOOL_CALL_START"
	ToolCallArgs            = "TOOL_CALL_ARGS"
	ToolCallEnd             = "TOOL_CALL_END"
	ToolCallResult          = "TOOL_CALL_RESULT"
	MessagesSnapshot        = "MESSAGES_SNAPSHOT"
	Custom                  = "CUSTOM"
	Raw                     = "RAW"
)

// Names of our own events. Names without a prefix are the protocol's.
const (
	ToolOutput       = "carrel.tool_output"
	ApprovalResolved = "carrel.approval_resolved"
)

// Event is any AG-UI event. Which fields it has, its type tells; a field that an
// event must have is never empty there, but for Content.
type Event struct {
	Type            string            `json:"type"`
	Timestamp       int64             `json:"timestamp,omitempty"` // ms since 1970, of our event
	ThreadID        string            `json:"threadId,omitempty"`
	RunID           string            `json:"runId,omitempty"`
	ProtocolVersion string            `json:"protocolVersion,omitempty"`
	MessageID       string            `json:"messageId,omitempty"`
	Role            string            `json:"role,omitempty"`
	ToolCallID      string            `json:"toolCallId,omitempty"`
	ToolCallName    string            `json:"toolCallName,omitempty"`
	ParentMessageID string            `json:"parentMessageId,omitempty"`
	Delta           string            `json:"delta,omitempty"`
	Content         *string           `json:"content,omitempty"`
	Messages        []json.RawMessage `json:"messages,omitempty"`
	Name            string            `json:"name,omitempty"`
	Value           any               `json:"value,omitempty"`
	Event           json.RawMessage   `json:"event,omitempty"`
	Source          string            `json:"source,omitempty"`
	Message         string            `json:"message,omitempty"`
	Code            protocol.Code     `json:"code,omitempty"`
	Result          json.RawMessage   `json:"result,omitempty"`
	Outcome         *Outcome          `json:"outcome,omitempty"`
	Usage           []TokenUsage      `json:"usage,omitempty"`
	Metadata        *Metadata         `json:"metadata,omitempty"`
}

// Metadata is what we add to events and interrupts, under our own name.
type Metadata struct {
	Carrel any `json:"carrel"`
}

// Outcomes of a run that did not fail.
const (
	Success     = "success"
	Interrupted = "interrupt"
	Cancelled   = "cancelled"
)

// Outcome tells how a run ended that did not fail.
type Outcome struct {
	Type       string      `json:"type"`
	Interrupts []Interrupt `json:"interrupts,omitempty"`
}

// TokenUsage counts as AG-UI does: the parts stand beside their sums, in which they
// are contained.
type TokenUsage struct {
	InputTokens           int64 `json:"inputTokens"`
	OutputTokens          int64 `json:"outputTokens"`
	TotalTokens           int64 `json:"totalTokens"`
	CachedInputTokens     int64 `json:"cachedInputTokens"`
	CacheWriteInputTokens int64 `json:"cacheWriteInputTokens"`
}

// usageOf gives what was used since an earlier count; nil if nothing was.
func usageOf(now, earlier protocol.Usage) []TokenUsage {
	since := func(now, earlier int64) int64 { return max(0, now-max(0, earlier)) }
	read := since(now.CacheReadTokens, earlier.CacheReadTokens)
	written := since(now.CacheCreationTokens, earlier.CacheCreationTokens)
	u := TokenUsage{
		InputTokens:  since(now.InputTokens, earlier.InputTokens) + read + written,
		OutputTokens: since(now.OutputTokens, earlier.OutputTokens),

		CachedInputTokens: read, CacheWriteInputTokens: written,
	}
	u.TotalTokens = u.InputTokens + u.OutputTokens
	if u.TotalTokens == 0 {
		return nil
	}
	return []TokenUsage{u}
}

// AppendFrame appends an event as server-sent events frame it: one line of data and an
// empty one. Whatever an event holds, a line break in it is escaped: JSON allows raw
// ones between its tokens alone, and there encoding/json leaves none. After an error b
// is as long as before.
func AppendFrame(b []byte, e Event) ([]byte, error) {
	before := len(b)
	out := bytes.NewBuffer(append(b, "data: "...))
	encoder := json.NewEncoder(out) // ends with a newline
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(e); err != nil {
		return b[:before], fmt.Errorf("encode %s: %w", e.Type, err)
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}
