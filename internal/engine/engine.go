// Package engine is the seam where a worker process comes to be. The pool knows
// only this package; internal/engine/local starts processes of this machine.
package engine

import (
	"context"
	"io"
	"os"
	"time"

	"carrel/protocol"
)

// Engine starts workers. Implementations are safe for concurrent use.
type Engine interface {
	// Start makes a worker that is jailed up to the point of binding: it waits
	// for Bind and has run nothing of anybody's. Errors are *protocol.Error with
	// CodeWorkerStartFailed or CodeIsolationUnavailable and name the step.
	Start(ctx context.Context, spec Spec) (Process, error)
}

// Spec says what Start needs to know.
type Spec struct {
	// UserID is the user the worker will be bound to, where that is known
	// already (a cold start); empty for a warm worker.
	UserID string
}

// Binding ties a process to one user, once.
type Binding struct {
	UserID string
	// Broker is the worker's end of a line to the broker, a socket; nil = it gets
	// none. Bind passes a duplicate on and leaves it open.
	Broker *os.File
}

// Process is one worker and everything it has started.
type Process interface {
	// PID is the worker's process id on the host.
	PID() int
	// Bind gives the user's directory to the waiting worker and finishes its
	// jail. After an error the process is of no more use: Kill it.
	Bind(ctx context.Context, b Binding) error
	// Stream is the worker's JSON-RPC stream: read its stdout, write its stdin.
	// Closing it closes both. It reads io.EOF once the worker has ended.
	Stream() io.ReadWriteCloser
	// Kill ends the worker and its whole tree at once. It is idempotent and does
	// not wait.
	Kill()
	// Done is closed when the worker and its tree are gone and what the host
	// held for them (cgroup, descriptors) is released.
	Done() <-chan struct{}
	// Exit tells how the worker ended; call it after Done.
	Exit() protocol.ExitCause
	// Steps tells how long each step of the start has taken so far, in order. It is
	// called by who calls Bind, and not during that.
	Steps() []StepTime
	// Usage reads what the worker and its tree use now.
	Usage() Usage
	// OOMKills is how many processes of the tree the kernel has killed so far for
	// want of memory; 0 where their memory is not bounded in sum.
	OOMKills() int64
}

// StepTime is how long one step of a start took.
type StepTime struct {
	Step string
	Took time.Duration
}

// Usage is what a sandbox uses. A figure that cannot be had is zero.
type Usage struct {
	MemoryBytes int64
	CPU         time.Duration
}
