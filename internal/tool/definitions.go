package tool

import "encoding/json"

// The built-in tools, by the names that models, rules and events know them by.
const (
	bashName  = "bash"
	readName  = "read"
	writeName = "write"
	editName  = "edit"
	globName  = "glob"
	grepName  = "grep"
	// resolveName is no tool of a model's: see Set.Resolve.
	resolveName = "resolve"
)

// Names are the names of the built-in tools.
func Names() []string {
	return []string{bashName, readName, writeName, editName, globName, grepName}
}

// bashType is the Messages API's own shell tool: models are trained on it, and its
// description is theirs. Its editor tool is one tool with four commands, which no
// permission rule could tell apart by name; so files have tools of our own.
const bashType = "bash_20250124"

// Definitions are the tools as a model is told of them, always the same and in the
// same order, so that a cached prompt stays good.
func (s *Set) Definitions() []Definition {
	return []Definition{
		{Name: bashName, Builtin: bashType},
		{Name: readName, InputSchema: json.RawMessage(readSchema), Description: "Reads a text file. Gives its lines with their numbers. " +
			"A long file is given in parts: read on with offset."},
		{Name: writeName, InputSchema: json.RawMessage(writeSchema), Description: "Writes a file, whole or not at all. Replaces one that exists, " +
			"and makes the directories above it."},
		{Name: editName, InputSchema: json.RawMessage(editSchema), Description: "Replaces a text in a file. old_string must stand in the file exactly " +
			"as given, white space included, and only once, unless replace_all is set."},
		{Name: globName, InputSchema: json.RawMessage(globSchema), Description: "Finds files by name. In the pattern * stands for anything within a name, " +
			"** for any directories, {a,b} for either."},
		{Name: grepName, InputSchema: json.RawMessage(grepSchema), Description: "Finds lines in files by a regular expression (RE2). Binary files and .git are left out."},
	}
}

const (
	readSchema = `{"type":"object","properties":{` +
		`"path":{"type":"string","description":"The file, absolute or relative to the working directory."},` +
		`"offset":{"type":"integer","minimum":1,"description":"The first line to give; 1 if left out."},` +
		`"limit":{"type":"integer","minimum":1,"description":"How many lines to give at most; 2000 if left out."}` +
		`},"required":["path"]}`
	writeSchema = `{"type":"object","properties":{` +
		`"path":{"type":"string","description":"The file, absolute or relative to the working directory."},` +
		`"content":{"type":"string","description":"All that will be in the file."}` +
		`},"required":["path","content"]}`
	editSchema = `{"type":"object","properties":{` +
		`"path":{"type":"string","description":"The file, absolute or relative to the working directory."},` +
		`"old_string":{"type":"string","description":"The text to replace."},` +
		`"new_string":{"type":"string","description":"The text to put in its place."},` +
		`"replace_all":{"type":"boolean","description":"Replace it wherever it stands."}` +
		`},"required":["path","old_string","new_string"]}`
	globSchema = `{"type":"object","properties":{` +
		`"pattern":{"type":"string","description":"Such as **/*.go or src/{a,b}/*.ts."},` +
		`"path":{"type":"string","description":"The directory to look in; the working directory if left out."},` +
		`"limit":{"type":"integer","minimum":1,"description":"How many names to give at most; 500 if left out."}` +
		`},"required":["pattern"]}`
	grepSchema = `{"type":"object","properties":{` +
		`"pattern":{"type":"string","description":"The regular expression (RE2)."},` +
		`"path":{"type":"string","description":"The file or directory to look in; the working directory if left out."},` +
		`"glob":{"type":"string","description":"Look only in files whose name or path matches, such as *.go."},` +
		`"ignore_case":{"type":"boolean"},` +
		`"context":{"type":"integer","minimum":0,"maximum":20,"description":"Lines to give around each match."},` +
		`"files_only":{"type":"boolean","description":"Give the names of the files alone."},` +
		`"limit":{"type":"integer","minimum":1,"description":"How many matches to give at most; 200 if left out."}` +
		`},"required":["pattern"]}`
)
