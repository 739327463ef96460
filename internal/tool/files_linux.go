package tool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The tools that work on files run in a tool host, in the tools' own domain: the
// kernel, not a look at the path, decides what a link that was planted in the
// workspace may lead to. The worker's side is here, the host's in fileOp.

const (
	// fileTime is what a search may take before it says what it has found so far;
	// fileGrace is what its host then has to answer.
	fileTime  = 20 * time.Second
	fileGrace = 10 * time.Second
	// maxTextBytes bounds what a call writes or replaces. JSON can make six times
	// as much of it, and a message to a host has 4 MiB.
	maxTextBytes = 512 << 10
	maxPathBytes = unix.PathMax
)

// fileRequest is a file tool's call on its way to a host.
type fileRequest struct {
	Tool  string    `json:"tool"`
	Dir   string    `json:"dir"` // that a path is relative to
	Input fileInput `json:"input"`
	Bytes int       `json:"bytes"` // of the result's text
}

// check refuses, before a host is asked, what no host could do.
func (r *fileRequest) check() error {
	in := &r.Input
	needsPath := r.Tool == readName || r.Tool == writeName || r.Tool == editName
	for _, text := range []string{in.Path, in.Pattern, in.Glob} {
		switch {
		case len(text) >= maxPathBytes:
			return fmt.Errorf("a path or pattern of %d bytes; at most %d are allowed", len(text), maxPathBytes-1)
		case strings.ContainsRune(text, 0):
			return errors.New("a path or pattern must not contain a zero byte")
		}
	}
	switch n := len(in.Content) + len(in.Old) + len(in.New); {
	case needsPath && in.Path == "":
		return errors.New("path: must not be empty")
	case !needsPath && r.Tool != resolveName && in.Pattern == "":
		return errors.New("pattern: must not be empty")
	case n > maxTextBytes:
		return fmt.Errorf("%d bytes of text; one call takes at most %d: do it in parts, or with bash", n, maxTextBytes)
	}
	return nil
}

func (s *Set) callFile(ctx context.Context, c Call) Result {
	r := fileRequest{Tool: c.Name, Dir: s.Dir(), Bytes: s.o.ResultBytes}
	if err := decodeInput(c.Input, &r.Input); err != nil {
		return failf("%s", err)
	}
	if err := r.check(); err != nil {
		return failf("%s", err)
	}
	if r.Tool == writeName || r.Tool == editName {
		// Two edits of one file at a time, each in its own host, would lose one.
		if err := s.files.take(ctx); err != nil {
			return failf("%s: %s", c.Name, err)
		}
		defer s.files.give()
	}
	result, err := s.o.Hosts.file(ctx, &r)
	if err != nil {
		return failf("%s: %s", c.Name, err)
	}
	return result
}

// Resolve tells where a path of a tool's input leads, links followed as far as
// there is something, by the tools' own idea of the file system. What it says may
// be untrue the moment after: tools of the same user may change it.
func (s *Set) Resolve(ctx context.Context, path string) (string, error) {
	r := fileRequest{Tool: resolveName, Dir: s.Dir(), Input: fileInput{Path: path}}
	if err := r.check(); err != nil {
		return "", err
	}
	result, err := s.o.Hosts.file(ctx, &r)
	switch {
	case err != nil:
		return "", err
	case result.IsError:
		return "", errors.New(result.Content)
	}
	return result.Content, nil
}

// file has a host do a file tool's work.
func (h *Hosts) file(ctx context.Context, r *fileRequest) (Result, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, fileTime+fileGrace, errTimeout)
	defer cancel()
	h.wake()
	defer h.settle()
	host, err := h.take(ctx)
	if err != nil {
		return Result{}, err
	}
	answer, err := host.ask(ctx, request{File: r})
	if err == nil && answer.File == nil {
		err = errors.New("no result in its reply")
	}
	if err != nil {
		host.destroy()
		if ctx.Err() == nil {
			err = host.lost(err)
		}
		return Result{}, err
	}
	h.put(host)
	return *answer.File, nil
}

// fileOp is one file tool's work, in a host.
type fileOp struct {
	fileRequest

	path  string // Input.Path, absolute
	until time.Time
}

// doFile is a host's answer to a file request.
func doFile(r *fileRequest) Result {
	o := &fileOp{fileRequest: *r, path: absolute(r.Dir, r.Input.Path), until: time.Now().Add(fileTime)}
	o.Bytes = min(max(o.Bytes, 1<<10), maxTextBytes)
	switch r.Tool {
	case readName:
		return o.read()
	case writeName:
		return o.write()
	case editName:
		return o.edit()
	case globName:
		return o.glob()
	case grepName:
		return o.grep()
	case resolveName:
		return Result{Content: resolve(o.path)}
	}
	return failf("a tool host knows no %q", r.Tool)
}

func (o *fileOp) late() bool { return time.Now().After(o.until) }

var errLate = fmt.Errorf("stopped after %s, the time limit of a file tool", fileTime)

// inTime is a reader that ends in errLate once the time is up: a file may be of
// any size, and grow while it is read.
func (o *fileOp) inTime(f io.Reader) io.Reader { return &inTime{from: f, late: o.late} }

type inTime struct {
	from io.Reader
	late func() bool
}

func (r *inTime) Read(p []byte) (int, error) {
	if r.late() {
		return 0, errLate
	}
	return r.from.Read(p)
}

// result is a text that the tool has put together, and what there is to say of it.
func (o *fileOp) result(text *Output, notes ...string) Result {
	return Result{Content: withNotes(text.String(), notes), Truncated: text.Truncated(), Bytes: text.Size()}
}

// openRegular opens a file to read. It never waits, not for a pipe's writer
// either, and refuses all that is no plain file.
func openRegular(path string) (*os.File, os.FileInfo, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = notRegular(path, info.Mode())
	}
	if err != nil {
		_ = f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

type notRegularError struct{ path, what string }

func (e *notRegularError) Error() string { return e.path + " is " + e.what + ", not a file" }

func notRegular(path string, m os.FileMode) error {
	e := &notRegularError{path: path, what: "something else"}
	switch {
	case m.IsDir():
		e.what = "a directory"
	case m&os.ModeNamedPipe != 0:
		e.what = "a named pipe"
	case m&os.ModeSocket != 0:
		e.what = "a socket"
	case m&os.ModeDevice != 0:
		e.what = "a device"
	}
	return e
}
