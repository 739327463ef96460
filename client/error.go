package client

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"time"

	"carrel/protocol"
)

// ErrBrokenStream tells of an event stream that is not what it must be: a gap, a
// double, an event of another run, or a frame that is none. To connect again would
// hide it.
var ErrBrokenStream = errors.New("event stream broken")

// Error is an answer that tells of no success, or the error that a run ended with.
// errors.Is(err, protocol.CodeNotFound) asks for its code.
type Error struct {
	// Code is the daemon's. An answer that came from elsewhere, a proxy most likely,
	// has the code that is nearest to its status.
	Code    protocol.Code
	Status  int // of the answer; of an ended run, the one that belongs to its code
	Message string
	// RetryAfter is how long to wait before the same request has a chance; zero
	// where waiting does not help, or nobody told.
	RetryAfter time.Duration
	RunID      string // of the run that the error is about, where it is about one
	RequestID  string // X-Request-Id, by which the daemon's log tells more
}

func (e *Error) Error() string { return string(e.Code) + ": " + e.Message }

// Unwrap makes it a [*protocol.Error] too, which both halves of carrel know.
func (e *Error) Unwrap() error {
	return &protocol.Error{Code: e.Code, Message: e.Message, RetryAfter: e.RetryAfter}
}

// maxProblemBytes bounds a problem document.
const maxProblemBytes = 64 << 10

// problemError makes an error of an answer that is none of success. What is no
// problem document comes from something between us and the daemon.
func problemError(resp *http.Response) *Error {
	e := &Error{
		Code:       codeOfStatus(resp.StatusCode),
		Status:     resp.StatusCode,
		RetryAfter: retryAfter(resp.Header),
		RequestID:  resp.Header.Get("X-Request-Id"),
	}
	media, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if media == protocol.ProblemMediaType {
		var p protocol.Problem
		err := json.NewDecoder(io.LimitReader(resp.Body, maxProblemBytes)).Decode(&p)
		if err == nil && p.Code.Known() {
			e.Code, e.Message, e.RunID = p.Code, p.Detail, p.RunID
			if p.RetryAfter != 0 { // the header has whole seconds alone
				e.RetryAfter = seconds(p.RetryAfter)
			}
			return e
		}
	}
	e.Message = fmt.Sprintf("%s %s: answered %s, which is no answer of carrel's",
		resp.Request.Method, resp.Request.URL.Redacted(), resp.Status)
	return e
}

// retryAfter reads the header of that name: seconds, or a date (RFC 9110, section
// 10.2.3).
func retryAfter(h http.Header) time.Duration {
	given := h.Get("Retry-After")
	if n, err := strconv.ParseFloat(given, 64); err == nil {
		return seconds(n)
	}
	if date, err := http.ParseTime(given); err == nil {
		return max(0, time.Until(date))
	}
	return 0
}

// seconds are bounded, for a duration has no room for all that a number can say.
func seconds(n float64) time.Duration {
	const most = 365 * 24 * time.Hour
	if !(n > 0) { // NaN too
		return 0
	}
	if n > most.Seconds() {
		return most
	}
	return time.Duration(n * float64(time.Second))
}

// codeOfStatus reads a foreign answer as one of ours, roughly.
func codeOfStatus(status int) protocol.Code {
	switch {
	case status == http.StatusUnauthorized:
		return protocol.CodeUnauthorized
	case status == http.StatusForbidden:
		return protocol.CodeForbidden
	case status == http.StatusNotFound:
		return protocol.CodeNotFound
	case status == http.StatusConflict, status == http.StatusPreconditionFailed:
		return protocol.CodeConflict
	case status == http.StatusRequestEntityTooLarge:
		return protocol.CodeTooLarge
	case status == http.StatusTooManyRequests:
		return protocol.CodeRateLimited
	case status >= 400 && status < 500:
		return protocol.CodeInvalidRequest
	default:
		return protocol.CodeInternal
	}
}

// endedError is the error of a run that has ended with one.
func endedError(runID string, e protocol.RunError) *Error {
	return &Error{Code: e.Code, Status: e.Code.HTTPStatus(), Message: e.Message, RunID: runID}
}

// transient reports whether the same request may have another answer later.
func transient(err error) bool {
	if errors.Is(err, ErrBrokenStream) || errors.Is(err, http.ErrSchemeMismatch) {
		return false
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return false
	}
	e, ok := errors.AsType[*Error](err)
	if !ok {
		return true // of the connection
	}
	switch e.Status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusInternalServerError,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	case http.StatusTooManyRequests:
		return e.Code != protocol.CodeBudgetExceeded // time gives no money back
	}
	return false
}
