package tool

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path"

	"github.com/bmatcuk/doublestar/v4"

	"carrel/protocol"
)

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
	// Denial is what the sandbox has denied the call, and likely made it fail; nil =
	// nothing that can be told. Content has a line of it.
	Denial *protocol.Denial
}

// Command is what a call of bash will run; ok is false if this is none, or one
// that will be refused. Who judges a call reads it as the tool itself does.
func (c Call) Command() (command string, ok bool) {
	var in bashInput
	if c.Name != bashName || decodeInput(c.Input, &in) != nil {
		return "", false
	}
	return in.Command, true
}

// Path is the absolute, cleaned path that a call of a file tool is about, from
// the working directory dir; ok is false if this is no such call, or one that
// will be refused. Of a search it is where it begins.
func (c Call) Path(dir string) (p string, ok bool) {
	var in fileInput
	switch c.Name {
	case readName, writeName, editName, globName, grepName:
	default:
		return "", false
	}
	if decodeInput(c.Input, &in) != nil {
		return "", false
	}
	p = absolute(dir, in.Path)
	if c.Name == globName {
		p = searchRoot(p, in.Pattern)
	}
	return p, true
}

// searchRoot is where a search for names begins: what stands before the first
// wildcard is a directory.
func searchRoot(dir, pattern string) string {
	fixed, _ := doublestar.SplitPattern(pattern)
	return absolute(dir, fixed)
}

type bashInput struct {
	Command string  `json:"command"`
	Restart bool    `json:"restart"`
	Timeout float64 `json:"timeout_s"` // seconds; not in the model's own idea of the tool
}

// fileInput is the input of every file tool: each uses the fields it has a name for.
type fileInput struct {
	Path       string `json:"path,omitempty"`
	Offset     int    `json:"offset,omitempty"`      // read: first line, from 1
	Limit      int    `json:"limit,omitempty"`       // read: lines; glob: names; grep: matches
	Content    string `json:"content,omitempty"`     // write
	Old        string `json:"old_string,omitempty"`  // edit
	New        string `json:"new_string,omitempty"`  // edit
	ReplaceAll bool   `json:"replace_all,omitempty"` // edit
	Pattern    string `json:"pattern,omitempty"`     // glob, grep
	Glob       string `json:"glob,omitempty"`        // grep: only files that match
	IgnoreCase bool   `json:"ignore_case,omitempty"` // grep
	Context    int    `json:"context,omitempty"`     // grep: lines around a match
	FilesOnly  bool   `json:"files_only,omitempty"`  // grep: names without lines
}

// decodeInput takes what a model wrote. Fields it made up are ignored.
func decodeInput(raw json.RawMessage, into any) error {
	if len(bytes.TrimSpace(raw)) == 0 {
		raw = json.RawMessage("{}")
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return fmt.Errorf("the input is not what the tool takes: %w", err)
	}
	return nil
}

// absolute is where a path of a tool's input leads: from the working directory.
func absolute(dir, p string) string {
	if path.IsAbs(p) {
		return path.Clean(p)
	}
	return path.Join(dir, p)
}
