package tool

import "encoding/json"

// Definition is a tool as the model is told of it.
type Definition struct {
	Name        string
	Description string
	InputSchema json.RawMessage // JSON Schema; nil where Builtin says it
	Builtin     string          // the Messages API's own tool type, such as bash_20250124, or ""
}

// Call is one use of a tool, as the model asked for it.
type Call struct {
	ID    string
	Name  string
	Input json.RawMessage
}

// Result is what the model is told of a call. A call that could not be done is
// a result too: Content then says which rule or limit stood in the way.
type Result struct {
	Content   string // valid UTF-8
	IsError   bool
	Truncated bool  // Content is shorter than what there was
	Bytes     int64 // the true size of what there was
}
