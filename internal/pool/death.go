package pool

import (
	"errors"
	"fmt"
	"time"

	"carrel/protocol"
)

// DeathError tells that a worker ended under its runs, or never started. Its
// code and message are for everyone; Cause is what RUN_ERROR carries besides.
// errors.As finds a *protocol.Error in it.
type DeathError struct {
	Err   *protocol.Error
	Cause protocol.ExitCause
}

func (e *DeathError) Error() string { return e.Err.Error() }

func (e *DeathError) Unwrap() error { return e.Err }

// The steps of a start as the pool sees them: ExitCause.Step. What failed inside
// one, the message tells.
const (
	stepStart      = "start"      // engine.Start: the process and its jail
	stepBind       = "bind"       // the user's directory, the rest of the jail
	stepInitialize = "initialize" // the handshake
)

// startDeath makes the error of a start that failed at step.
func startDeath(step string, err error) *DeathError {
	code := protocol.CodeWorkerStartFailed
	message := err.Error()
	if e, ok := errors.AsType[*protocol.Error](err); ok {
		message = e.Message
		if e.Code == protocol.CodeIsolationUnavailable {
			code = e.Code // No try will mend it, and its message names the fix.
		}
	}
	return &DeathError{
		Err:   &protocol.Error{Code: code, Message: "worker start: " + step + ": " + message, Err: err},
		Cause: protocol.ExitCause{Step: step},
	}
}

// fate is why the pool ends a worker.
type fate struct {
	code    protocol.Code
	message string
	cause   protocol.ExitCause
	// suspected is set where what was seen may as well be the trace of a death
	// (a stream that broke off): how the process ended then tells more.
	suspected bool
}

func violation(err error) *fate {
	return &fate{code: protocol.CodeWorkerProtocolError, message: "worker broke the protocol: " + err.Error()}
}

func noAnswer(format string, args ...any) *fate {
	return &fate{
		code:    protocol.CodeWorkerCrashed,
		message: "worker ended: " + fmt.Sprintf(format, args...),
		cause:   protocol.ExitCause{NoAnswer: true},
	}
}

// deathOf puts together why the pool ended a worker (nil: it did not) and how
// the process ended.
func deathOf(f *fate, exit protocol.ExitCause) *DeathError {
	told := exit.OOMKill || exit.Seccomp || exit.Signal != ""
	if f != nil && (!f.suspected || !told) {
		return &DeathError{Err: &protocol.Error{Code: f.code, Message: f.message}, Cause: f.cause}
	}
	code := protocol.CodeWorkerCrashed
	if exit.OOMKill {
		code = protocol.CodeOutOfMemory
	}
	return &DeathError{Err: &protocol.Error{Code: code, Message: "worker ended: " + describe(exit)}, Cause: exit}
}

func describe(c protocol.ExitCause) string {
	switch {
	case c.OOMKill:
		return "killed by the kernel for want of memory"
	case c.Seccomp:
		return "seccomp: it made a forbidden system call (SIGSYS)"
	case c.Signal != "":
		return "signal " + c.Signal
	case c.ExitCode != nil:
		return fmt.Sprintf("exit status %d", *c.ExitCode)
	case c.NoAnswer:
		return "no answer"
	case c.Step != "":
		return "start step " + c.Step
	default:
		return "cause unknown"
	}
}

func errShuttingDown() *protocol.Error {
	return protocol.Errorf(protocol.CodeShuttingDown, "the daemon is shutting down")
}

// reaping is how long anybody waits for a killed tree to be gone: the kernel
// needs milliseconds (measured: 1.2 to 4.5 ms), unless it is stuck itself.
const reaping = 10 * time.Second
