package protocol

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Code names a kind of error on every boundary: in problem documents, in
// RUN_ERROR events and in JSON-RPC error data.
type Code string

// The codes. Their HTTP statuses are in [Code.HTTPStatus].
const (
	CodeInvalidRequest       Code = "invalid_request"       // the request is malformed; the detail names the field
	CodeUnauthorized         Code = "unauthorized"          // no API key that is in force
	CodeForbidden            Code = "forbidden"             // the key, or a foreign page, may not do this
	CodeNotFound             Code = "not_found"             // it is not there, or is another user's
	CodeConflict             Code = "conflict"              // what is there stands in the way
	CodeTooLarge             Code = "too_large"             // longer than is allowed
	CodeQueueFull            Code = "queue_full"            // too many runs wait already
	CodeQueueTimeout         Code = "queue_timeout"         // no worker became free in time
	CodeRateLimited          Code = "rate_limited"          // too many requests of this key, or wrong keys from this address
	CodeBudgetExceeded       Code = "budget_exceeded"       // the money or tokens of the run, or of the user's day, are used up
	CodeCanceled             Code = "canceled"              // somebody asked for the end of it
	CodeInternal             Code = "internal"              // an error of the daemon's own; its log tells more
	CodeWorkerCrashed        Code = "worker_crashed"        // the worker ended in mid-run; the cause tells how
	CodeWorkerProtocolError  Code = "worker_protocol_error" // the worker sent what it must not
	CodeAgentError           Code = "agent_error"           // the agent could not go on, as when the model refuses
	CodeWorkerStartFailed    Code = "worker_start_failed"   // no worker came to be
	CodeIsolationUnavailable Code = "isolation_unavailable" // the host does not give the isolation that is asked for
	CodeShuttingDown         Code = "shutting_down"         // the daemon is ending
	CodeRunTimeout           Code = "run_timeout"           // it took longer than it may
	CodeOutOfMemory          Code = "out_of_memory"         // the sandbox used more memory than it may
	CodeDiskQuotaExceeded    Code = "disk_quota_exceeded"   // the user's directory is full
	CodeInterrupted          Code = "interrupted"           // the daemon ended while the run was going
)

// httpStatus holds plain numbers: naming net/http would link its server into
// the jailed half. 499 is nginx's status for a request its client gave up.
var httpStatus = map[Code]int{
	CodeInvalidRequest:       400,
	CodeUnauthorized:         401,
	CodeForbidden:            403,
	CodeNotFound:             404,
	CodeConflict:             409,
	CodeTooLarge:             413,
	CodeQueueFull:            429,
	CodeQueueTimeout:         429,
	CodeRateLimited:          429,
	CodeBudgetExceeded:       429,
	CodeCanceled:             499,
	CodeInternal:             500,
	CodeWorkerCrashed:        502,
	CodeWorkerProtocolError:  502,
	CodeAgentError:           502,
	CodeWorkerStartFailed:    503,
	CodeIsolationUnavailable: 503,
	CodeShuttingDown:         503,
	CodeRunTimeout:           504,
	CodeOutOfMemory:          507,
	CodeDiskQuotaExceeded:    507,
	CodeInterrupted:          503,
}

// HTTPStatus returns the status a problem document with this code is sent with;
// 500 for a code it does not know.
func (c Code) HTTPStatus() int {
	if status, ok := httpStatus[c]; ok {
		return status
	}
	return httpStatus[CodeInternal]
}

// Error makes a code an error, so that errors.Is(err, protocol.CodeNotFound) asks for it.
func (c Code) Error() string { return string(c) }

// Codes lists the codes above, in order of the alphabet.
func Codes() []Code { return slices.Sorted(maps.Keys(httpStatus)) }

// Known reports whether c is one of the codes above.
func (c Code) Known() bool {
	_, ok := httpStatus[c]
	return ok
}

// Error is an error with a code. It crosses every boundary as its code and
// message; the cause behind it stays on the side where it happened.
type Error struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
	// RetryAfter is how long a caller should wait before the same request has a
	// chance; zero where waiting does not help.
	RetryAfter time.Duration `json:"-"`
	// Err is the cause, for the log; it never leaves the process.
	Err error `json:"-"`
}

// Errorf makes an [Error]. A %w in the format becomes its cause.
func Errorf(code Code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Message: err.Error(), Err: errors.Unwrap(err)}
}

func (e *Error) Error() string { return string(e.Code) + ": " + e.Message }

func (e *Error) Unwrap() error { return e.Err }

// Is makes errors.Is(err, CodeNotFound), or errors.Is(err, &Error{Code: CodeNotFound}),
// ask for the code alone.
func (e *Error) Is(target error) bool {
	if code, ok := target.(Code); ok {
		return e.Code == code
	}
	t, ok := target.(*Error)
	return ok && t.Code == e.Code && t.Message == ""
}

// CodeOf returns the code of the first [Error] in err's chain, or
// [CodeInternal] if there is none.
func CodeOf(err error) Code {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return CodeInternal
}
