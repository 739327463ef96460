package tool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"carrel/internal/fdpass"
	"carrel/protocol"
)

const (
	// termGrace is what a command gets between SIGTERM and the kill of its whole
	// tree; killGrace what its tool host then gets to report the end.
	termGrace = 4 * time.Second
	killGrace = 2 * time.Second
	// pieceBytes bounds one piece of output; JSON may make six times as much of it.
	pieceBytes = 32 << 10
	// maxPipeBytes is what a pipe can be made to hold (fs.pipe-max-size).
	maxPipeBytes = 1 << 20
)

// Command is what to run. Everything it starts ends with it.
type Command struct {
	Argv  []string
	Env   []string // the whole environment
	Dir   string   // absolute, inside
	Stdin string
	// Output gets each piece as it comes, valid UTF-8, from two goroutines but
	// never at once. An error stops the command.
	Output func(s Stream, text string) error
}

// Stream tells which output a piece is of.
type Stream string

// The two output streams.
const (
	Stdout Stream = "stdout"
	Stderr Stream = "stderr"
)

// Exit is how a command ended.
type Exit struct {
	Code   int    // 126 or 127 if it did not start, 128 + n for signal n
	Signal string // "SIGKILL"
}

// Run runs one command in a tool host of its own and waits until it and all it
// started are gone. When ctx ends, the command gets SIGTERM, then its whole tree
// SIGKILL, and the error is ctx's cause. Other errors are *protocol.Error.
func (h *Hosts) Run(ctx context.Context, c Command) (Exit, error) {
	h.wake()
	defer h.settle()
	host, err := h.take(ctx)
	if err != nil {
		return Exit{}, protocol.Errorf(protocol.CodeAgentError, "%w", err)
	}
	p, err := openPipes()
	if err != nil {
		h.put(host)
		return Exit{}, protocol.Errorf(protocol.CodeAgentError, "start command: %w", err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	out := &outlet{sink: c.Output, cancel: cancel}
	var wg sync.WaitGroup
	wg.Go(func() { feed(p.stdin.here, c.Stdin) })
	wg.Go(func() { out.pump(p.stdout.here, Stdout) })
	wg.Go(func() { out.pump(p.stderr.here, Stderr) })

	result, err := host.run(ctx, &runRequest{Argv: c.Argv, Env: c.Env, Dir: c.Dir}, p)
	clean := err == nil || ctx.Err() != nil && result != nil
	if clean {
		h.put(host)
	} else {
		host.destroy()
	}
	// Nothing of this run holds the other ends of the pipes now. But a command may
	// have handed its own to one of another run (over a Unix socket in /tmp), so
	// the pumps must not wait for all writers to be gone.
	_ = p.stdin.here.Close()
	p.interrupt()
	wg.Wait()
	p.close()
	if err != nil {
		return Exit{}, err
	}
	if result.NotStarted != "" {
		if err := c.Output(Stderr, "carrel: "+result.NotStarted+"\n"); err != nil {
			return Exit{}, err
		}
	}
	return Exit{Code: result.Code, Signal: result.Signal}, nil
}

// run gives the command to the host and waits for its outcome. With an error of
// ctx the outcome may be there too: the host is then clean.
func (host *Host) run(ctx context.Context, r *runRequest, p *pipes) (*outcome, error) {
	// A stopped host reads nothing, and a long command does not fit into the line.
	stop := context.AfterFunc(ctx, func() { _ = host.conn.SetDeadline(time.Unix(1, 0)) })
	err := host.conn.Send(request{Run: r}, p.theirs()...)
	p.closeTheirs()
	if !stop() {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		return nil, host.lost(err)
	}
	answered := make(chan struct{})
	var answer reply
	var recvErr error
	go func() {
		defer close(answered)
		_, recvErr = host.conn.Recv(&answer)
	}()
	ended := host.await(ctx, answered)
	if !ended {
		// No answer: stopped, or worse. Closing the line ends the receiver.
		_ = host.conn.Close()
		<-answered
		return nil, context.Cause(ctx)
	}
	if recvErr != nil {
		return nil, host.lost(recvErr)
	}
	if answer.Outcome == nil {
		return nil, host.lost(errors.New("no outcome in its reply"))
	}
	if ctx.Err() != nil {
		return answer.Outcome, context.Cause(ctx)
	}
	return answer.Outcome, nil
}

// await waits for the answer; after ctx's end only as long as the two graces.
func (host *Host) await(ctx context.Context, answered <-chan struct{}) bool {
	select {
	case <-answered:
		return true
	case <-ctx.Done():
	}
	for _, step := range []struct {
		req  request
		wait time.Duration
	}{
		{request{Signal: int(syscall.SIGTERM)}, termGrace},
		{request{Kill: true}, killGrace},
	} {
		_ = host.conn.Send(step.req)
		timer := time.NewTimer(step.wait)
		select {
		case <-answered:
			timer.Stop()
			return true
		case <-timer.C:
		}
	}
	return false
}

func (host *Host) lost(err error) error {
	return protocol.Errorf(protocol.CodeAgentError, "the tool host of this run was killed: %w", err)
}

// outlet passes output on, one piece at a time.
type outlet struct {
	mu     sync.Mutex
	sink   func(Stream, string) error
	cancel context.CancelCauseFunc
}

// pump reads until every writer is gone, or to the end of what is there once the
// pipe is interrupted. After a failed sink it goes on reading, so that the command
// meets no full pipe while it is being ended.
func (o *outlet) pump(from *os.File, s Stream) {
	var d textDecoder
	buffer := make([]byte, pieceBytes)
	for {
		n, err := from.Read(buffer)
		o.pass(s, d.decode(buffer[:n]))
		if errors.Is(err, os.ErrDeadlineExceeded) {
			o.drain(from, s, &d, buffer)
		}
		if err != nil {
			o.pass(s, d.flush())
			return
		}
	}
}

// drain passes on what an interrupted pipe holds: never more than a pipe can, for
// somebody may still be writing.
func (o *outlet) drain(from *os.File, s Stream, d *textDecoder, buffer []byte) {
	raw, err := from.SyscallConn()
	if err != nil || from.SetReadDeadline(time.Time{}) != nil {
		return
	}
	for left := maxPipeBytes; left > 0; {
		var n int
		err := raw.Read(func(fd uintptr) bool {
			n, _ = unix.Read(int(fd), buffer) // the pipe is non-blocking: EAGAIN once it is empty
			return true
		})
		if err != nil || n <= 0 {
			return
		}
		o.pass(s, d.decode(buffer[:n]))
		left -= n
	}
}

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

func feed(to *os.File, text string) {
	_, _ = io.Copy(to, strings.NewReader(text)) // EPIPE: the command does not want it
	_ = to.Close()
}

// pipes are the three of a command: our end and the command's.
type pipes struct{ stdin, stdout, stderr pipe }

type pipe struct{ here, there *os.File }

func openPipes() (*pipes, error) {
	p := &pipes{}
	var err error
	if p.stdin.there, p.stdin.here, err = os.Pipe(); err == nil {
		if p.stdout.here, p.stdout.there, err = os.Pipe(); err == nil {
			p.stderr.here, p.stderr.there, err = os.Pipe()
		}
	}
	if err != nil {
		p.close()
		p.closeTheirs()
		return nil, fmt.Errorf("pipe: %w", err)
	}
	return p, nil
}

func (p *pipes) theirs() []*os.File {
	return []*os.File{p.stdin.there, p.stdout.there, p.stderr.there}
}

func (p *pipes) closeTheirs() { fdpass.CloseAll(p.theirs()) }

// interrupt makes the readers of the output stop at its end, whoever may write on.
func (p *pipes) interrupt() {
	past := time.Unix(1, 0)
	_ = p.stdout.here.SetReadDeadline(past)
	_ = p.stderr.here.SetReadDeadline(past)
}

func (p *pipes) close() {
	fdpass.CloseAll([]*os.File{p.stdin.here, p.stdout.here, p.stderr.here})
}
