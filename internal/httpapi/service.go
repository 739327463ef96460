package httpapi

import (
	"context"
	"io"

	"carrel/protocol"
)

// Service is what the API serves. Its methods are safe for concurrent use. A
// [*protocol.Error] anywhere in an error's chain decides the code, the detail
// and the Retry-After of the answer; any other error is answered as "internal"
// without its text, and its text goes to the log. [CallerOf] tells of a method's
// context who calls; that the caller may, has been seen to.
type Service interface {
	Executor
	Ledger
	Sandboxes
	Files
	Sessions
	Host
}

// Executor starts and stops runs.
type Executor interface {
	// Execute records a run and sets it going. The run is durable when Execute
	// returns, and goes on whatever happens to ctx afterwards. existing tells
	// that the idempotency key named a run started earlier, which is returned.
	Execute(ctx context.Context, s Submission) (run protocol.Run, existing bool, err error)
	// Cancel asks a run to end. It is idempotent: an ended run is no error.
	Cancel(ctx context.Context, runID string) error
	// Approve answers a run that asks whether a tool may be used. The same answer
	// again is no error, another one is CodeConflict.
	Approve(ctx context.Context, runID, approvalID string, d protocol.ApprovalDecision) error
}

// Submission is one request for a run.
type Submission struct {
	Request protocol.ExecuteRequest
	// IdempotencyKey is empty or 1 to 255 visible ASCII characters; it means
	// something only together with Caller.
	IdempotencyKey string
	Caller         string // its name
}

// Ledger tells of runs, going and ended. An unknown run is CodeNotFound.
type Ledger interface {
	Run(ctx context.Context, runID string) (protocol.Run, error)
	// RunOfKey finds the run that Execute would return as existing; CodeNotFound if it
	// would start one.
	RunOfKey(ctx context.Context, caller, key string) (protocol.Run, error)
	// Owner tells whose run it is.
	Owner(ctx context.Context, runID string) (userID string, err error)
	Runs(ctx context.Context, q protocol.RunQuery) (protocol.RunPage, error)
	// Events reads a run's events with a seq greater than after: those stored,
	// then those to come.
	Events(ctx context.Context, runID string, after int64) (EventReader, error)
}

// EventReader reads one run's events in order, without gap or double. It is
// used by one goroutine.
type EventReader interface {
	// Next waits for events and returns all that are at hand, within a bound of
	// the implementation's choosing; they stay valid until the following call.
	// It returns io.EOF after the last event of the run, by when Ledger.Run
	// shows the run as ended; also at once where after was beyond the end.
	Next(ctx context.Context) ([]protocol.Event, error)
	// Close releases the reader. It is called exactly once.
	Close()
}

// Sandboxes shows and retires users' sandboxes, and runs commands in them.
type Sandboxes interface {
	// Exec runs one command to its end; ctx's end stops the command. Where sink
	// is not nil, it is given the output as it comes, from one goroutine at a
	// time and never after Exec has returned; its error stops the command.
	Exec(ctx context.Context, userID string, req protocol.ExecRequest, sink ExecSink) (protocol.ExecResult, error)
	Sandboxes(ctx context.Context) (protocol.Sandboxes, error)
	Sandbox(ctx context.Context, userID string) (protocol.SandboxInfo, error)
	// RetireSandbox ends the user's worker and, with purge, removes the user's
	// directory.
	RetireSandbox(ctx context.Context, userID string, purge bool) error
}

// ExecSink takes a piece of output, as ExecStdout or ExecStderr.
type ExecSink = func(protocol.EventType, protocol.ExecOutput) error

// Files takes users' files in and out. A path is below the user's workspace, elements
// with a slash between; the empty one is the workspace.
type Files interface {
	// OpenFile opens a regular file or a directory, whose use ends with Close.
	// CodeNotFound if there is none, CodeConflict if it is anything else.
	OpenFile(ctx context.Context, userID, path string) (OpenFile, error)
	// PutFile stores a file, whole or not at all.
	PutFile(ctx context.Context, userID string, u FileUpload) (StoredFile, error)
	// UnpackFiles unpacks a tar archive below a directory; u.When is not asked.
	UnpackFiles(ctx context.Context, userID string, u FileUpload) (protocol.UnpackResult, error)
	// DeleteFile removes a file, or a directory with all in it. when is as in FileUpload.
	DeleteFile(ctx context.Context, userID, path string, when func(etag string) error) error
	// AddAttachment stores body as a file for the user's runs, whole or not at all.
	AddAttachment(ctx context.Context, userID, name, mediaType string, body io.Reader) (protocol.AttachmentInfo, error)
}

// OpenFile is a file or a directory that is open. Read and Seek are of a file, and
// promise the size that Info tells: less is io.ErrUnexpectedEOF.
type OpenFile interface {
	io.ReadSeekCloser
	Info() protocol.FileInfo
	ETag() string
	// List lists a directory from a cursor on, at most limit names.
	List(ctx context.Context, cursor string, limit int) (protocol.FileList, error)
	// Archive writes a directory as a tar archive, and counts what it leaves out.
	Archive(ctx context.Context, w io.Writer) (omitted int, err error)
}

// FileUpload is a file, or an archive, on its way in.
type FileUpload struct {
	Path  string
	Body  io.Reader
	Bytes int64 // how long Body is; negative: nobody knows
	// When decides by the ETag of what stands at the path, "" for nothing, whether that
	// may be replaced.
	When func(etag string) error
}

// StoredFile is a file that has come in.
type StoredFile struct {
	Info    protocol.FileInfo
	ETag    string // empty where it may be another's by now
	Created bool
}

// Sessions shows what agents remember of a user's conversations. A session that is
// not there is CodeNotFound.
type Sessions interface {
	ListSessions(ctx context.Context, userID string) (protocol.SessionList, error)
	ReadSession(ctx context.Context, userID, sessionID string) (protocol.Transcript, error)
	DeleteSession(ctx context.Context, userID, sessionID string) error
	// ForkSession makes a new session that begins as another; fork is its id, or
	// empty for a new one. CodeConflict if there is one of that id.
	ForkSession(ctx context.Context, userID, sessionID, fork string) (protocol.SessionInfo, error)
}

// Host tells of the daemon itself.
type Host interface {
	System(ctx context.Context) (protocol.System, error)
	// Ready reports why no run could start now.
	Ready(ctx context.Context) error
}
