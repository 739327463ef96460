package protocol

import (
	"encoding/json"
	"time"
)

// SessionInfo is a session as a list shows it.
type SessionInfo struct {
	SessionID  string    `json:"session_id"`
	Bytes      int64     `json:"bytes"` // of its transcript
	ModifiedAt time.Time `json:"modified_at"`
}

// SessionList is GET /v1/users/{user_id}/sessions, the last used first.
type SessionList struct {
	Sessions []SessionInfo `json:"sessions"`
}

// Transcript is GET /v1/users/{user_id}/sessions/{session_id}: what was said, in
// order. An entry is a JSON object of the agent's own, with "time" and "role", and
// "content" in the model's blocks.
type Transcript struct {
	SessionID string            `json:"session_id"`
	Entries   []json.RawMessage `json:"entries"`
}

// ForkRequest is the body of POST /v1/users/{user_id}/sessions/{session_id}/fork.
type ForkRequest struct {
	SessionID string `json:"session_id,omitempty"` // of the new one; left out, it is made
}
