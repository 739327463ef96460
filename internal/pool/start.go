package pool

import (
	"time"

	"carrel/internal/engine"
	"carrel/protocol"
)

// StartKind is whom a worker was started for.
type StartKind string

// The kinds of starts. A warm worker has two: spare, until it is ready for anybody,
// and warm, from then on that it was somebody's.
const (
	ColdStart  StartKind = "cold"
	WarmStart  StartKind = "warm"
	SpareStart StartKind = "spare"
)

// Start is how a worker came to be ready for its user (a spare one: for anybody).
type Start struct {
	Kind   StartKind
	Worker uint64 // its number, as Lease.Worker tells it
	// Began is when the process was begun, or the warm worker claimed; Ended when it
	// was ready, or the start had failed.
	Began, Ended time.Time
	// Steps are those between the two, in order; the handshake is the last.
	Steps []engine.StepTime
	Err   *DeathError // nil = it succeeded
}

// StepInitialize is the last step of a start, after those of the engine.
const StepInitialize = stepInitialize

// EndReason tells why a worker is gone.
type EndReason string

// The reasons.
const (
	EndStopped     EndReason = "stopped" // the pool wanted it
	EndCrashed     EndReason = "crashed"
	EndOutOfMemory EndReason = "out_of_memory"
	EndSeccomp     EndReason = "seccomp"
	EndNoAnswer    EndReason = "no_answer"
	EndProtocol    EndReason = "protocol_error"
	EndStartFailed EndReason = "start_failed"
)

// EndReasons lists them all.
func EndReasons() []EndReason {
	return []EndReason{EndStopped, EndCrashed, EndOutOfMemory, EndSeccomp, EndNoAnswer, EndProtocol, EndStartFailed}
}

// endReason puts together what deathOf does, for who counts. byItself tells that the
// process was gone before it was killed.
func (w *worker) endReason(f *fate, exit protocol.ExitCause, byItself bool) EndReason {
	asked := isClosed(w.finish)
	switch {
	case exit.OOMKill:
		return EndOutOfMemory
	case exit.Seccomp:
		return EndSeccomp
	case w.start.Err != nil:
		return EndStartFailed
	case f != nil && f.cause.NoAnswer:
		return EndNoAnswer
	case f != nil && f.code == protocol.CodeWorkerProtocolError && (!f.suspected || exit.Signal == ""):
		return EndProtocol
	case byItself && (!asked || exit.ExitCode == nil || *exit.ExitCode != 0):
		return EndCrashed
	}
	return EndStopped
}

// beginStart notes that a start has begun. Like the other two it is for the worker's
// own goroutine, before the worker is anybody's to lend.
func (w *worker) beginStart(kind StartKind, at time.Time, proc engine.Process) {
	w.start = Start{Kind: kind, Worker: w.id, Began: at}
	if proc != nil {
		w.stepsBefore = len(proc.Steps())
	}
}

// handshook notes the last step.
func (w *worker) handshook(took time.Duration) {
	w.start.Steps = append(w.start.Steps, engine.StepTime{Step: StepInitialize, Took: took})
}

// startEnded tells how it went; proc is nil if there is none.
func (p *Pool) startEnded(w *worker, proc engine.Process, death *DeathError) {
	w.start.Ended, w.start.Err = time.Now(), death
	if proc != nil {
		w.start.Steps = append(proc.Steps()[w.stepsBefore:], w.start.Steps...)
	}
	if p.o.Started != nil {
		p.o.Started(w.start)
	}
}
