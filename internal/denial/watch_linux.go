package denial

import (
	"strings"

	"golang.org/x/sys/unix"

	"carrel/protocol"
)

const (
	// maxTail is how much of a command's last words is looked at, maxLine of one line.
	maxTail = 8 << 10
	maxLine = 1 << 10
)

// Watch keeps the last words of a command. It is used by one goroutine at a time.
type Watch struct{ all, stderr tail }

// Write takes a piece of the command's output.
func (w *Watch) Write(isStderr bool, text string) {
	w.all.add(text)
	if isStderr {
		w.stderr.add(text)
	}
}

// tail keeps the end of a text, and up to twice as much as is asked for.
type tail []byte

func (t *tail) add(text string) {
	if len(text) > maxTail {
		text = text[len(text)-maxTail:]
	}
	if len(*t)+len(text) > 2*maxTail {
		*t = append((*t)[:0], (*t)[len(*t)-min(len(*t), maxTail):]...)
	}
	*t = append(*t, text...)
}

func (t *tail) String() string { return string((*t)[max(0, len(*t)-maxTail):]) }

// Ending is how a command ended, as a shell tells it: 128 and the signal's number where
// one ended it.
type Ending struct {
	Code   int
	Signal string // "SIGSYS"; "" where none is known of
}

// Denial tells what of the sandbox has likely made the command fail; nil = nothing has,
// or it cannot be told. A command that ended well is not asked about. Of one with
// anything on its standard error only that is read: the rest may be about anything.
func (w *Watch) Denial(e Ending) *protocol.Denial {
	if e.Code == 0 {
		return nil
	}
	text := w.stderr.String()
	if strings.TrimSpace(text) == "" {
		text = w.all.String()
	}
	if d := classify(text, e.Code, readable); d != nil {
		return d
	}
	switch {
	case e.Signal == "SIGSYS", e.Code == 128+int(unix.SIGSYS):
		return systemCall.at("", true)
	case e.Signal == "SIGXFSZ", e.Code == 128+int(unix.SIGXFSZ):
		return fileSize.at("", true)
	}
	return nil
}

// readable reports whether a path is there and may be read.
func readable(path string) (exists, ok bool) {
	if err := unix.Access(path, unix.F_OK); err != nil {
		return false, false
	}
	return true, unix.Access(path, unix.R_OK) == nil
}
