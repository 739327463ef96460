package protocol

import "encoding/json"

// Methods that the orchestrator calls on a worker.
const (
	MethodInitialize = "initialize" // InitializeParams → InitializeResult; once
	MethodExecute    = "execute"    // ExecuteParams → Result
	MethodExec       = "exec"       // ExecParams → ExecResult
	MethodPing       = "ping"       // {} → {}
	MethodShutdown   = "shutdown"   // {} → {}; the worker then exits
	MethodCancel     = "cancel"     // notification, CancelParams; both directions
)

// Methods that a worker calls on the orchestrator.
const (
	MethodEvent      = "event"       // notification, EventParams
	MethodExecOutput = "exec_output" // notification, ExecOutputParams
	MethodDenied     = "denied"      // notification, DeniedParams
	MethodDecided    = "decided"     // notification, DecidedParams
	MethodApprove    = "approve"     // ApproveParams → ApproveResult
	MethodHook       = "hook"        // HookParams → HookResult
)

// JSON-RPC 2.0 error codes (specification, section 5.1), and carrel's own one,
// whose data is an RPCErrorData.
const (
	RPCParseError     = -32700
	RPCInvalidRequest = -32600
	RPCMethodNotFound = -32601
	RPCInvalidParams  = -32602
	RPCInternalError  = -32603
	RPCCarrelError    = -32000
)

// RPCErrorData is the data of a JSON-RPC error that carries a code of ours.
type RPCErrorData struct {
	Code Code `json:"code"`
}

// InitializeParams opens the conversation with a worker and binds it to a user.
type InitializeParams struct {
	ProtocolVersion int          `json:"protocol_version"`
	UserID          string       `json:"user_id"`
	Agent           string       `json:"agent"` // default agent of its runs
	Limits          WorkerLimits `json:"limits"`
	// ApprovalSeconds is how long the host waits for the answer to an approval.
	ApprovalSeconds float64 `json:"approval_s,omitempty"`
	// Permissions are as the worker may know them: Permissions.ForWorker.
	Permissions Permissions `json:"permissions,omitzero"`
}

// WorkerLimits bounds what a worker lets one command do. The cgroup's limits
// are not among them: those the host sets from outside.
type WorkerLimits struct {
	MaxRuns        int   `json:"max_runs"`         // concurrent
	MaxOutputBytes int64 `json:"max_output_bytes"` // of one command, kept in its result
}

// InitializeResult is a worker's answer.
type InitializeResult struct {
	ProtocolVersion int      `json:"protocol_version"`
	Agent           string   `json:"agent"`
	Capabilities    []string `json:"capabilities"` // the agents it can run
	// Isolation is what the worker sees of its own jail from inside.
	Isolation IsolationReport `json:"isolation"`
}

// ExecuteParams starts a run. Without a run id (the seed's shape, typed by
// hand) the worker makes one.
type ExecuteParams struct {
	RunID       string       `json:"run_id,omitempty"`
	Message     string       `json:"message"`
	Attachments []Attachment `json:"attachments,omitempty"`
	SessionID   string       `json:"session_id,omitempty"`
	Config      RunConfig    `json:"config,omitzero"`
}

// ExecParams runs one command without an agent. With Stream set, its output
// goes out as exec_output notifications besides.
type ExecParams struct {
	ExecRequest

	ExecID string `json:"exec_id,omitempty"`
	Stream bool   `json:"stream,omitempty"`
}

// CancelParams names the request to cancel by its JSON-RPC id.
type CancelParams struct {
	ID json.RawMessage `json:"id"`
}

// EventParams is an event of a run on its way from the worker to the host.
type EventParams struct {
	RunID string          `json:"run_id"`
	Seq   int64           `json:"seq"`
	Type  EventType       `json:"type"`
	Data  json.RawMessage `json:"data"`
}

// ExecOutputParams is output of a streamed exec on its way to the host.
type ExecOutputParams struct {
	ExecID string    `json:"exec_id"`
	Type   EventType `json:"type"` // ExecStdout or ExecStderr
	Text   string    `json:"text"`
}

// ApproveParams asks whether a tool may be used. The run has sent an
// APPROVAL_REQUESTED with this id before.
type ApproveParams struct {
	RunID      string          `json:"run_id"`
	ApprovalID string          `json:"approval_id"`
	ToolCallID string          `json:"tool_call_id,omitempty"` // of the call that is asked about
	Tool       string          `json:"tool"`
	Input      json.RawMessage `json:"input"`
	Reason     string          `json:"reason,omitempty"`
}

// The decisions on an approval.
const (
	Allow = "allow"
	Deny  = "deny"
)

// ApproveResult is the answer. Input, if set, replaces the tool's input.
type ApproveResult struct {
	Decision string          `json:"decision"` // Allow or Deny
	Reason   string          `json:"reason,omitempty"`
	Input    json.RawMessage `json:"input,omitempty"`
}
