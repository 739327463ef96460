package local

import (
	"bytes"
	"context"
	"log/slog"
)

const (
	// maxLogLine bounds one line of a worker's log, maxLogBytes all of it: what a
	// sandbox says must not fill the daemon's log.
	maxLogLine  = 4 << 10
	maxLogBytes = 256 << 10
)

// logWriter makes log records of lines. It never fails: a writer at the other
// end of the pipe must not be held up.
type logWriter struct {
	ctx    context.Context //nolint:containedctx // whom the lines are about; nil = nobody
	logger *slog.Logger
	attrs  []any

	line    []byte
	written int
}

// Write implements io.Writer.
func (w *logWriter) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 && w.written < maxLogBytes {
		piece, rest, ended := bytes.Cut(p, []byte("\n"))
		room := maxLogLine - len(w.line)
		w.line = append(w.line, piece[:min(room, len(piece))]...)
		p = rest
		if ended {
			w.flush()
		}
	}
	return n, nil
}

func (w *logWriter) flush() {
	if len(w.line) == 0 {
		return
	}
	w.written += len(w.line)
	w.logger.WarnContext(w.ctx, "process says", append(w.attrs, "line", string(w.line))...)
	w.line = w.line[:0]
	if w.written >= maxLogBytes {
		w.logger.WarnContext(w.ctx, "process says more than is logged", w.attrs...)
	}
}
