package protocol

import "encoding/json"

// Permissions are the rules and hooks that hold for every run: the content of
// CARREL_PERMISSIONS_FILE. How rules are written and which one counts stands in
// internal/hook/doc.go.
type Permissions struct {
	Allow []string `json:"allow,omitempty"`
	Ask   []string `json:"ask,omitempty"`
	Deny  []string `json:"deny,omitempty"`
	// Default is what holds where no rule does: "allow", "ask" or "deny". Left
	// out, it is "ask" for a tool that allow rules name by pattern, else "allow".
	Default string `json:"default,omitempty"`
	Hooks   []Hook `json:"hooks,omitempty"`
}

// ForWorker is what a worker may know of them: a webhook's URL, which may hold a
// secret, is not among it.
func (p Permissions) ForWorker() Permissions {
	hooks := make([]Hook, len(p.Hooks))
	for i, h := range p.Hooks {
		if h.Webhook != "" {
			h.Webhook = "the host's"
		}
		hooks[i] = h
	}
	p.Hooks = hooks
	return p
}

// HookEvent names what a hook is asked about.
type HookEvent string

// The events.
const (
	HookBeforeTool HookEvent = "before_tool"
	HookAfterTool  HookEvent = "after_tool"
	HookPrompt     HookEvent = "prompt"
	HookStop       HookEvent = "stop"
)

// Hook is asked about an event: a command that is run in the tool tier, or a URL
// that the host posts to. Exactly one of Command and Webhook is set.
type Hook struct {
	Event HookEvent `json:"event"`
	// Match is a rule's pattern: which calls of tools it is asked about; "" = all.
	Match   string   `json:"match,omitempty"`
	Command *Command `json:"command,omitempty"`
	Webhook string   `json:"webhook,omitempty"`
	// TimeoutSeconds bounds its answer; 0 = 10. A hook that gives none denies.
	TimeoutSeconds float64 `json:"timeout_s,omitempty"`
}

// HookParams is what a hook is told: a command reads it as JSON on its stdin, a
// webhook as the body of a POST.
type HookParams struct {
	Hook      int       `json:"hook"` // its place among Permissions.Hooks, from 0
	Event     HookEvent `json:"event"`
	UserID    string    `json:"user_id,omitempty"` // set by the host
	RunID     string    `json:"run_id"`
	SessionID string    `json:"session_id,omitempty"`
	Cwd       string    `json:"cwd,omitempty"`
	// Tool and Input are those of the call; of a prompt, Input is {"prompt": text}.
	Tool   string          `json:"tool,omitempty"`
	Input  json.RawMessage `json:"input,omitempty"`
	Result *HookToolResult `json:"result,omitempty"` // after_tool
}

// HookToolResult is a tool's result as an after_tool hook sees it.
type HookToolResult struct {
	Content string `json:"content"`
	IsError bool   `json:"is_error"`
}

// HookResult is a hook's answer. All of it may be left out.
type HookResult struct {
	// Decision is Allow, "ask", Deny or "", which leaves it to the rules.
	Decision string          `json:"decision,omitempty"`
	Reason   string          `json:"reason,omitempty"`
	Input    json.RawMessage `json:"input,omitempty"`   // in the place of the call's or the prompt's
	Context  string          `json:"context,omitempty"` // for the model to read besides
}
