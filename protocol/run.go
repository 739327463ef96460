package protocol

import (
	"encoding/json"
	"time"
)

// ExecuteRequest is the body of POST /v1/execute.
type ExecuteRequest struct {
	UserID      string       `json:"user_id"`
	Message     string       `json:"message"`
	SessionID   string       `json:"session_id,omitempty"`
	Attachments []Attachment `json:"attachments,omitempty"`
	Config      RunConfig    `json:"config,omitzero"`
}

// Attachment names a file that a run is given.
type Attachment struct {
	ID   string `json:"id"`
	Type string `json:"type,omitempty"` // media type; what the content shows counts
}

// RunConfig is what one run may ask for. A zero field means the daemon's own.
type RunConfig struct {
	Agent          string  `json:"agent,omitempty"`
	Model          string  `json:"model,omitempty"`
	MaxTokens      int     `json:"max_tokens,omitempty"`
	MaxTurns       int     `json:"max_turns,omitempty"`
	System         string  `json:"system,omitempty"`
	TimeoutSeconds float64 `json:"timeout_s,omitempty"`
	PermissionMode string  `json:"permission_mode,omitempty"`
}

// RunStatus is where a run stands.
type RunStatus string

// The states of a run: queued until a worker has it, running, then one of the
// other four for good.
const (
	StatusQueued      RunStatus = "queued"
	StatusRunning     RunStatus = "running"
	StatusFinished    RunStatus = "finished"
	StatusFailed      RunStatus = "failed"
	StatusCanceled    RunStatus = "canceled"
	StatusInterrupted RunStatus = "interrupted" // the daemon ended first
)

// Ended reports whether a run in this state is over.
func (s RunStatus) Ended() bool { return s != StatusQueued && s != StatusRunning }

// StatusOf returns the state a run is in after its last event.
func StatusOf(last EventType, code Code) RunStatus {
	switch {
	case last == EventRunFinished:
		return StatusFinished
	case code == CodeCanceled:
		return StatusCanceled
	case code == CodeInterrupted:
		return StatusInterrupted
	default:
		return StatusFailed
	}
}

// Run is a run as GET /v1/runs/{run_id} shows it.
type Run struct {
	RunID      string     `json:"run_id"`
	UserID     string     `json:"user_id"`
	SessionID  string     `json:"session_id"`
	Agent      string     `json:"agent"`
	Status     RunStatus  `json:"status"`
	CreatedAt  time.Time  `json:"created_at"`
	StartedAt  *time.Time `json:"started_at,omitempty"` // a worker took it
	EndedAt    *time.Time `json:"ended_at,omitempty"`
	LastSeq    int64      `json:"last_seq"` // of its last stored event; 0 = none yet
	Result     *Result    `json:"result,omitempty"`
	Error      *RunError  `json:"error,omitempty"`
	QueuePlace int        `json:"queue_place,omitempty"` // 1 = next; while queued
	WaitedMS   int64      `json:"waited_ms"`             // from created to started (or now)
}

// Result is what a finished run gives: the data of RUN_FINISHED, and the answer
// of the worker to "execute".
type Result struct {
	RunID      string     `json:"run_id"`
	SessionID  string     `json:"session_id"`
	Status     RunStatus  `json:"status"`
	Content    string     `json:"content"`
	ToolCalls  []ToolCall `json:"tool_calls"` // never null
	TokensUsed int64      `json:"tokens_used"`
	Usage      Usage      `json:"usage"`
	Duration   float64    `json:"duration"` // seconds
	StopReason string     `json:"stop_reason"`
	ExitCode   *int       `json:"exit_code,omitempty"` // shell agent
	// Truncated tells that Content is shorter than what there was; ContentBytes
	// is then the true size.
	Truncated    bool  `json:"truncated,omitempty"`
	ContentBytes int64 `json:"content_bytes,omitempty"`
	// Denials are what the sandbox has likely denied a script that failed; its output
	// is as it was. A model reads of them in its tools' results.
	Denials []Denial `json:"denials,omitempty"`
	// ToolCallsLeftOut counts the calls that ToolCalls has no room for.
	ToolCallsLeftOut int `json:"tool_calls_left_out,omitempty"`
}

// ToolCall is one finished call of a tool.
type ToolCall struct {
	ID      string          `json:"id"`
	Name    string          `json:"name"`
	Input   json.RawMessage `json:"input"`
	Result  string          `json:"result"`
	IsError bool            `json:"is_error"`
}

// Usage counts tokens and money (US dollars).
type Usage struct {
	InputTokens         int64   `json:"input_tokens"`
	OutputTokens        int64   `json:"output_tokens"`
	CacheReadTokens     int64   `json:"cache_read_tokens"`
	CacheCreationTokens int64   `json:"cache_creation_tokens"`
	CostUSD             float64 `json:"cost_usd"`
}

// Tokens is the tokens of all kinds together.
func (u Usage) Tokens() int64 {
	return u.InputTokens + u.OutputTokens + u.CacheReadTokens + u.CacheCreationTokens
}

// RunQuery selects runs for GET /v1/runs; empty fields select all.
type RunQuery struct {
	UserID    string
	SessionID string
	Status    RunStatus
	Limit     int    // at most this many
	Cursor    string // what an earlier page gave as its next cursor
}

// RunPage is one page of runs, newest first.
type RunPage struct {
	Runs       []Run  `json:"runs"`
	NextCursor string `json:"next_cursor,omitempty"`
}

// AttachmentInfo is what is known of a file given to a user's runs: the answer of
// POST /v1/users/{user_id}/attachments.
type AttachmentInfo struct {
	ID     string `json:"id"` // "file_…"
	Name   string `json:"name"`
	Type   string `json:"type"`   // media type, of the content
	Size   int64  `json:"size"`   // bytes
	SHA256 string `json:"sha256"` // hex
}
