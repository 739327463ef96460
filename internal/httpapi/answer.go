package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"

	"carrel/protocol"
)

// statusClientGone is nginx's status for a request its client gave up.
const statusClientGone = 499

// answerError adds to an error what its code alone does not say of the answer.
type answerError struct {
	error

	status int    // instead of the code's own, unless 0
	allow  string // the Allow header of a 405
	runID  string // the run that ended so
}

func (e *answerError) Unwrap() error { return e.error }

// writeProblem answers with the problem document of err.
func (a *api) writeProblem(w http.ResponseWriter, err error) {
	p, retry := problemOf(err)
	h := w.Header()
	if e, ok := errors.AsType[*answerError](err); ok && e.allow != "" {
		h.Set("Allow", e.allow)
	}
	if p.Status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", "Bearer") // RFC 9110, section 11.6.1
	}
	if retry > 0 {
		h.Set("Retry-After", strconv.FormatInt(int64(math.Ceil(retry.Seconds())), 10))
	}
	h.Set("Content-Type", protocol.ProblemMediaType)
	if err := a.writeBody(w, p.Status, p); err != nil {
		a.log.Debug("answer cut off", "error", err) // nobody is left to answer
	}
}

// problemOf describes err, and tells how long to wait before a retry.
func problemOf(err error) (protocol.Problem, time.Duration) {
	e := errorOf(err)
	p := protocol.Problem{
		Type:       "about:blank",
		Status:     e.Code.HTTPStatus(),
		Detail:     e.Message,
		Code:       e.Code,
		RetryAfter: e.RetryAfter.Seconds(),
	}
	if more, ok := errors.AsType[*answerError](err); ok {
		p.RunID = more.runID
		if more.status != 0 {
			p.Status = more.status
		}
	}
	p.Title = http.StatusText(p.Status)
	if p.Status == statusClientGone {
		p.Title = "Client Closed Request"
	}
	return p, e.RetryAfter
}

// errorOf finds the coded error in err's chain. An error without a code was not
// written for callers: its text stays here.
func errorOf(err error) *protocol.Error {
	if e, ok := errors.AsType[*protocol.Error](err); ok {
		return e
	}
	if errors.Is(err, context.Canceled) {
		return protocol.Errorf(protocol.CodeCanceled, "the request was given up")
	}
	return protocol.Errorf(protocol.CodeInternal, "an error of the daemon's own; its log tells more under the X-Request-Id of this answer")
}

// writeJSON answers with v as JSON.
func (a *api) writeJSON(w http.ResponseWriter, status int, v any) error {
	w.Header().Set("Content-Type", "application/json")
	return a.writeBody(w, status, v)
}

// writeBody marshals v before it sends anything, so that a value that has no
// JSON is still answered as an error. Nothing is escaped for HTML's sake, which would
// make a transcript of 64 MiB six times as long.
func (a *api) writeBody(w http.ResponseWriter, status int, v any) error {
	var body bytes.Buffer
	encoder := json.NewEncoder(&body) // ends with a newline
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Length", strconv.Itoa(body.Len()))
	w.WriteHeader(status)
	out := newPacedWriter(w, a.opts.SlowReader)
	if _, err := out.Write(body.Bytes()); err != nil {
		return fmt.Errorf("write answer: %w", err)
	}
	return nil
}

// pacedWriter cuts what it writes into pieces, each of which may block only so
// long. So a reader that stands still is cut off, and one that is merely slow
// is not, however long the answer. The last deadline stays on the connection
// for what net/http itself writes at the end, which then lifts it.
type pacedWriter struct {
	w    http.ResponseWriter
	ctl  *http.ResponseController
	slow time.Duration
}

// maxPieceBytes at the default of 30 s asks about 2 kB/s of a reader.
const maxPieceBytes = 64 << 10

func newPacedWriter(w http.ResponseWriter, slow time.Duration) pacedWriter {
	return pacedWriter{w: w, ctl: http.NewResponseController(w), slow: slow}
}

func (p pacedWriter) Write(b []byte) (int, error) {
	written := 0
	for written < len(b) {
		if err := p.arm(); err != nil {
			return written, err
		}
		n, err := p.w.Write(b[written:min(written+maxPieceBytes, len(b))])
		written += n
		if err != nil {
			return written, err
		}
	}
	return written, nil
}

// Flush sends what the server still holds back.
func (p pacedWriter) Flush() error {
	if err := p.arm(); err != nil {
		return err
	}
	return p.ctl.Flush()
}

// arm starts the time of the next write. A recorder in a test has no deadline.
func (p pacedWriter) arm() error {
	err := p.ctl.SetWriteDeadline(time.Now().Add(p.slow))
	if errors.Is(err, http.ErrNotSupported) {
		return nil
	}
	return err
}
