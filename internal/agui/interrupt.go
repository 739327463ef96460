package agui

import (
	"encoding/json"
	"strings"
	"time"

	"carrel/protocol"
)

// Interrupt is a question that a run stopped for: whether a tool may be used.
type Interrupt struct {
	ID             string          `json:"id"`
	Reason         string          `json:"reason"`
	Message        string          `json:"message"`
	ToolCallID     string          `json:"toolCallId,omitempty"`
	ResponseSchema json.RawMessage `json:"responseSchema"`
	ExpiresAt      string          `json:"expiresAt"`
	Metadata       Metadata        `json:"metadata"`
}

// Reasons of an interrupt, of AG-UI's own list.
const (
	reasonToolCall     = "tool_call" // it names the call
	reasonConfirmation = "confirmation"
)

// responseSchema is what [payload] reads.
const responseSchema = `{"type":"object","properties":{` +
	`"approved":{"type":"boolean","description":"true lets the tool be used, false does not"},` +
	`"decision":{"enum":["allow","deny"],"description":"the same in carrel's own words"},` +
	`"reason":{"type":"string","description":"told to the agent where it is denied"}},` +
	`"oneOf":[{"required":["approved"]},{"required":["decision"]}],"additionalProperties":false}`

// maxPromptBytes bounds how much of a tool's input stands in the prompt for people.
// All of it is in the metadata.
const maxPromptBytes = 1000

// question is what a person must see of what they are asked.
type question struct {
	RunID      string          `json:"run_id"`
	ApprovalID string          `json:"approval_id"`
	Tool       string          `json:"tool"`
	Input      json.RawMessage `json:"input"`
}

func newInterrupt(runID string, q protocol.ApprovalRequested) Interrupt {
	i := Interrupt{
		ID: InterruptID(runID, q.ApprovalID), Reason: reasonConfirmation, Message: prompt(q), ToolCallID: q.ToolCallID,
		ResponseSchema: json.RawMessage(responseSchema), ExpiresAt: q.ExpiresAt.UTC().Format(time.RFC3339Nano),
		Metadata: Metadata{question{RunID: runID, ApprovalID: q.ApprovalID, Tool: q.Tool, Input: q.Input}},
	}
	if q.ToolCallID != "" {
		i.Reason = reasonToolCall
	}
	return i
}

func prompt(q protocol.ApprovalRequested) string {
	input := string(q.Input)
	if len(input) > maxPromptBytes {
		input = strings.ToValidUTF8(input[:maxPromptBytes], "") + "…"
	}
	text := "May the tool " + q.Tool + " be used with " + input + "?"
	if q.Reason != "" {
		text += " (" + q.Reason + ")"
	}
	return text
}

// InterruptID names an approval of a run. A run's id holds no dot.
func InterruptID(runID, approvalID string) string { return runID + "." + approvalID }

// splitInterruptID undoes [InterruptID]; false where it is none.
func splitInterruptID(id string) (runID, approvalID string, ok bool) {
	runID, approvalID, _ = strings.Cut(id, ".")
	return runID, approvalID, runID != "" && approvalID != ""
}

// AskedIn gives the interrupt's id of a question; false for any other event.
func AskedIn(ev protocol.Event) (id string, ok bool) {
	var q protocol.ApprovalRequested
	if ev.Type != protocol.EventApprovalRequested || json.Unmarshal(ev.Data, &q) != nil {
		return "", false
	}
	return InterruptID(ev.RunID, q.ApprovalID), true
}
