package tool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"carrel/internal/fdpass"
)

const (
	// pieceBytes bounds one piece of output; JSON may make six times as much of it.
	pieceBytes = 32 << 10
	// maxPipeBytes is what a pipe can be made to hold (fs.pipe-max-size).
	maxPipeBytes = 1 << 20
)

// outlet passes the output of a command on, one piece at a time.
type outlet struct {
	mu     sync.Mutex
	sink   func(Stream, string) error
	cancel context.CancelCauseFunc
}

// pump makes the pump of one stream.
func (o *outlet) pump(from *os.File, s Stream) *pump {
	d := &textDecoder{}
	return &pump{
		from:  from,
		sink:  func(piece []byte) { o.pass(s, d.decode(piece)) },
		flush: func() { o.pass(s, d.flush()) },
		done:  make(chan struct{}),
	}
}

// pass takes no sink that failed, so that the pump goes on reading: the command
// must meet no full pipe while it is being ended.
func (o *outlet) pass(s Stream, text string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.sink == nil || text == "" {
		return
	}
	if err := o.sink(s, text); err != nil {
		o.sink = nil
		o.cancel(err)
	}
}

// pump reads a pipe until every writer is gone, or until end.
type pump struct {
	from  *os.File
	sink  func(piece []byte)
	flush func() // may be nil
	done  chan struct{}

	mu      sync.Mutex // held over every change of from's deadline
	ended   bool
	drained []chan struct{} // who waits for what is in the pipe now
}

func (p *pump) run() {
	defer close(p.done)
	buffer := make([]byte, pieceBytes)
	for {
		n, err := p.from.Read(buffer)
		if n > 0 {
			p.sink(buffer[:n])
		}
		if errors.Is(err, os.ErrDeadlineExceeded) && !p.empty(buffer) {
			continue
		}
		if err != nil {
			if p.flush != nil {
				p.flush()
			}
			return
		}
	}
}

// end makes the pump stop at the end of what is in the pipe, whoever may write on.
func (p *pump) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	_ = p.from.SetReadDeadline(time.Unix(1, 0))
}

// drain waits until what is in the pipe now has been passed on.
func (p *pump) drain() {
	drained := make(chan struct{})
	p.mu.Lock()
	p.drained = append(p.drained, drained)
	_ = p.from.SetReadDeadline(time.Unix(1, 0))
	p.mu.Unlock()
	select {
	case <-drained:
	case <-p.done:
	}
}

// empty passes on what the interrupted pipe holds: never more than a pipe can, for
// somebody may still be writing. It reports whether the pump has to end.
func (p *pump) empty(buffer []byte) (ended bool) {
	p.mu.Lock()
	drained := p.drained
	p.drained, ended = nil, p.ended
	err := p.from.SetReadDeadline(time.Time{})
	p.mu.Unlock()
	defer func() {
		for _, c := range drained {
			close(c)
		}
	}()
	raw, rawErr := p.from.SyscallConn()
	if errors.Join(err, rawErr) != nil {
		return true
	}
	for left := maxPipeBytes; left > 0; {
		var n int
		err := raw.Read(func(fd uintptr) bool {
			n, _ = unix.Read(int(fd), buffer) // the pipe is non-blocking: EAGAIN once it is empty
			return true
		})
		if err != nil || n <= 0 {
			return ended
		}
		p.sink(buffer[:n])
		left -= n
	}
	return ended
}

func feed(to *os.File, from io.Reader) {
	if from != nil {
		_, _ = io.Copy(to, from) // EPIPE: the command does not want it
	}
	_ = to.Close()
}

// pipes are those of a command: our end and the command's. The fourth is there
// only if it is asked for.
type pipes struct{ stdin, stdout, stderr, report pipe }

type pipe struct{ here, there *os.File }

func openPipes(report bool) (*pipes, error) {
	p := &pipes{}
	var err error
	p.stdin.there, p.stdin.here, err = os.Pipe()
	outputs := []*pipe{&p.stdout, &p.stderr}
	if report {
		outputs = append(outputs, &p.report)
	}
	for _, o := range outputs {
		if err == nil {
			o.here, o.there, err = os.Pipe()
		}
	}
	if err != nil {
		p.close()
		p.closeTheirs()
		return nil, fmt.Errorf("pipe: %w", err)
	}
	return p, nil
}

// theirs are the command's ends, in the order of its descriptors.
func (p *pipes) theirs() []*os.File {
	files := []*os.File{p.stdin.there, p.stdout.there, p.stderr.there}
	if p.report.there != nil {
		files = append(files, p.report.there)
	}
	return files
}

func (p *pipes) closeTheirs() { fdpass.CloseAll(p.theirs()) }

func (p *pipes) close() {
	fdpass.CloseAll([]*os.File{p.stdin.here, p.stdout.here, p.stderr.here, p.report.here})
}
