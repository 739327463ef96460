package protocol

import (
	"encoding/json"
	"errors"
	"fmt"
)

// Command is either an argument list or one text for the shell. In JSON it is
// an array of strings or a string.
type Command struct {
	Args  []string
	Shell string
}

// Argv returns the arguments to start: the list itself, or /bin/sh -c TEXT.
func (c Command) Argv() []string {
	if c.Args != nil {
		return c.Args
	}
	return []string{"/bin/sh", "-c", c.Shell}
}

// MarshalJSON implements json.Marshaler.
func (c Command) MarshalJSON() ([]byte, error) {
	if c.Args != nil {
		return json.Marshal(c.Args)
	}
	return json.Marshal(c.Shell)
}

// UnmarshalJSON implements json.Unmarshaler. An empty command is an error.
func (c *Command) UnmarshalJSON(b []byte) error {
	*c = Command{}
	if len(b) > 0 && b[0] == '[' {
		if err := json.Unmarshal(b, &c.Args); err != nil {
			return fmt.Errorf("command: %w", err)
		}
	} else if err := json.Unmarshal(b, &c.Shell); err != nil {
		return fmt.Errorf("command: %w", err)
	}
	return c.Validate()
}

// Validate reports an empty command.
func (c Command) Validate() error {
	if c.Shell == "" && (len(c.Args) == 0 || c.Args[0] == "") {
		return errors.New("command: must be a list that starts with a program, or a text for the shell")
	}
	return nil
}

// ExecRequest is the body of POST /v1/users/{user_id}/exec.
type ExecRequest struct {
	Command        Command           `json:"command"`
	Cwd            string            `json:"cwd,omitempty"` // below /workspace or absolute inside; default /workspace
	Stdin          string            `json:"stdin,omitempty"`
	Env            map[string]string `json:"env,omitempty"`
	TimeoutSeconds float64           `json:"timeout_s,omitempty"`
}

// ExecResult is what a command gave. Output that is no UTF-8 has its bad bytes
// replaced by U+FFFD.
type ExecResult struct {
	ExitCode   int    `json:"exit_code"`        // 128 + signal number where a signal ended it
	Signal     string `json:"signal,omitempty"` // "SIGKILL"
	Stdout     string `json:"stdout"`
	Stderr     string `json:"stderr"`
	Truncated  bool   `json:"truncated"`          // some output was left out
	OOMKill    bool   `json:"oom_kill,omitempty"` // the kernel killed it for want of memory
	DurationMS int64  `json:"duration_ms"`
	// Denials are what the sandbox has likely denied a command that failed.
	Denials []Denial `json:"denials,omitempty"`
}

// The events of a streamed exec, in its SSE answer and as "exec_output"
// notifications. They belong to no run and are not stored.
const (
	ExecStdout EventType = "STDOUT" // ExecOutput
	ExecStderr EventType = "STDERR" // ExecOutput
	ExecExit   EventType = "EXIT"   // ExecResult, its outputs empty
)

// ExecOutput is a piece of a command's output.
type ExecOutput struct {
	Text string `json:"text"`
}
