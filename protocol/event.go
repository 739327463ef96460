package protocol

import (
	"encoding/json"
	"time"
)

// EventType names what an event of a run tells.
type EventType string

// The events of a run. RUN_STARTED is the first (seq 1); exactly one of
// RUN_FINISHED and RUN_ERROR is the last, after everything the run started has
// ended. The shape of each one's data is the type named behind it; [Event.Decode]
// gives it.
const (
	EventRunStarted        EventType = "RUN_STARTED"        // RunStarted
	EventTextDelta         EventType = "TEXT_DELTA"         // TextDelta
	EventThinkingDelta     EventType = "THINKING_DELTA"     // ThinkingDelta
	EventToolCallStart     EventType = "TOOL_CALL_START"    // ToolCallStart
	EventToolCallArgs      EventType = "TOOL_CALL_ARGS"     // ToolCallArgs
	EventToolOutput        EventType = "TOOL_OUTPUT"        // ToolOutput
	EventToolCallResult    EventType = "TOOL_CALL_RESULT"   // ToolCallResult
	EventApprovalRequested EventType = "APPROVAL_REQUESTED" // ApprovalRequested
	EventApprovalResolved  EventType = "APPROVAL_RESOLVED"  // ApprovalResolved
	EventUsage             EventType = "USAGE"              // Usage
	EventRunFinished       EventType = "RUN_FINISHED"       // Result
	EventRunError          EventType = "RUN_ERROR"          // RunError
)

// EventTypes lists the types of a run's events.
func EventTypes() []EventType {
	return []EventType{
		EventRunStarted, EventTextDelta, EventThinkingDelta, EventToolCallStart, EventToolCallArgs, EventToolOutput,
		EventToolCallResult, EventApprovalRequested, EventApprovalResolved, EventUsage, EventRunFinished, EventRunError,
	}
}

// Ends reports whether an event of this type is the last of its run.
func (t EventType) Ends() bool { return t == EventRunFinished || t == EventRunError }

// Event is one event of a run, as the store keeps it and as SSE shows it.
type Event struct {
	RunID string    `json:"run_id"`
	Seq   int64     `json:"seq"`  // from 1, without gaps
	Time  time.Time `json:"time"` // the host's clock when it took the event in
	Type  EventType `json:"type"`
	// Data is a JSON object; which one, the event's type tells.
	Data json.RawMessage `json:"data"`
}

// RunStarted is the data of RUN_STARTED.
type RunStarted struct {
	SessionID string `json:"session_id"`
	Agent     string `json:"agent"`
}

// TextDelta is the data of TEXT_DELTA: the text that came since the last one.
// Stream tells which of a script's two outputs it is.
type TextDelta struct {
	Text   string `json:"text"`
	Stream string `json:"stream,omitempty"` // "stdout" or "stderr"; shell agent only
}

// ThinkingDelta is the data of THINKING_DELTA: what the model thought since the
// last one.
type ThinkingDelta struct {
	Text string `json:"text"`
}

// ToolCallStart is the data of TOOL_CALL_START.
type ToolCallStart struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

// ToolCallArgs is the data of TOOL_CALL_ARGS: a piece of the call's input, as
// JSON text that is complete only when all pieces are put together.
type ToolCallArgs struct {
	ID    string `json:"id"`
	Delta string `json:"delta"`
}

// ToolOutput is the data of TOOL_OUTPUT: output of a tool while it runs.
type ToolOutput struct {
	ID     string `json:"id"`
	Stream string `json:"stream"` // "stdout" or "stderr"
	Text   string `json:"text"`
}

// ToolCallResult is the data of TOOL_CALL_RESULT.
type ToolCallResult struct {
	ID      string `json:"id"`
	Name    string `json:"name"`
	Result  string `json:"result"`
	IsError bool   `json:"is_error"`
}

// ApprovalRequested is the data of APPROVAL_REQUESTED.
type ApprovalRequested struct {
	ApprovalID string          `json:"approval_id"`
	ToolCallID string          `json:"tool_call_id,omitempty"` // of the call that is asked about
	Tool       string          `json:"tool"`
	Input      json.RawMessage `json:"input"`
	Reason     string          `json:"reason,omitempty"`
	ExpiresAt  time.Time       `json:"expires_at"`
}

// ApprovalResolved is the data of APPROVAL_RESOLVED.
type ApprovalResolved struct {
	ApprovalID string `json:"approval_id"`
	Decision   string `json:"decision"` // "allow" or "deny"
	Reason     string `json:"reason,omitempty"`
}

// ApprovalDecision is the body of POST /v1/runs/{run_id}/approvals/{approval_id}.
type ApprovalDecision struct {
	Decision string `json:"decision"` // Allow or Deny
	Reason   string `json:"reason,omitempty"`
}

// RunError is the data of RUN_ERROR.
type RunError struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
	// Cause tells how a worker ended, where that ended the run.
	Cause *ExitCause `json:"cause,omitempty"`
	// Usage is what the run had used by then, where it used anything.
	Usage *Usage `json:"usage,omitempty"`
}

// Err is the ending as an error, of which errors.Is(err, CodeInterrupted) asks the code.
func (e RunError) Err() error { return &Error{Code: e.Code, Message: e.Message} }

// ExitCause tells how a process ended or where its start failed. At most one of
// its fields is set.
type ExitCause struct {
	ExitCode *int   `json:"exit_code,omitempty"`
	Signal   string `json:"signal,omitempty"`    // "SIGKILL"
	OOMKill  bool   `json:"oom_kill,omitempty"`  // the kernel's out-of-memory killer
	Seccomp  bool   `json:"seccomp,omitempty"`   // a forbidden system call (SIGSYS)
	Step     string `json:"step,omitempty"`      // the start step that failed
	NoAnswer bool   `json:"no_answer,omitempty"` // alive but answered no ping
}
