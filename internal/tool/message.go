package tool

import "carrel/internal/jail"

// hello is the first message to a tool host.
type hello struct {
	Limits  jail.Limits `json:"limits"`
	Missing []string    `json:"missing,omitempty"`
}

// request asks a tool host for something. Run comes with the descriptors that the
// command will have: stdin, stdout, stderr and, where it has a report to give, one
// more.
type request struct {
	Run *runRequest `json:"run,omitempty"`
	// Signal goes to the process group of the command that runs; kill = all of
	// the tier.
	Signal int  `json:"signal,omitempty"`
	Kill   bool `json:"kill,omitempty"`
	// File is a file tool's call; the host does it itself.
	File *fileRequest `json:"file,omitempty"`
}

type runRequest struct {
	Argv []string `json:"argv"`
	Env  []string `json:"env"`
	Dir  string   `json:"dir"`
}

// reply answers hello (with Error or nothing), each run and each file tool's call.
type reply struct {
	Error   string   `json:"error,omitempty"`
	Outcome *outcome `json:"outcome,omitempty"`
	File    *Result  `json:"file,omitempty"`
}

type outcome struct {
	// NotStarted is why the command could not be started, in a sentence; Code
	// is then the shell's 126 or 127.
	NotStarted string `json:"not_started,omitempty"`
	Code       int    `json:"code"`
	Signal     string `json:"signal,omitempty"`
}
