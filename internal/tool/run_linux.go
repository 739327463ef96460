package tool

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"carrel/internal/fdpass"
	"carrel/protocol"
)

const (
	// termGrace is what a command gets between SIGTERM and the kill of its whole
	// tree; killGrace what its tool host then gets to report the end.
	termGrace = 4 * time.Second
	killGrace = 2 * time.Second
)

// Command is what to run. Everything it starts ends with it.
type Command struct {
	Argv []string
	Env  []string // the whole environment
	Dir  string   // absolute, inside
	// Stdin is what the command reads; nil = nothing. One that is an io.Closer is
	// closed when the command has ended, and a Read under way must then return.
	Stdin io.Reader
	// Output gets each piece as it comes, valid UTF-8, from two goroutines but
	// never at once. An error stops the command.
	Output func(s Stream, text string) error
	// Report gets what the command writes to its descriptor 3, piece by piece;
	// nil = it has no such descriptor. It must not keep the piece.
	Report func(piece []byte)
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
	p, err := h.Start(ctx, c)
	if err != nil {
		return Exit{}, err
	}
	return p.Wait()
}

// Process is a command that runs. Its goroutines end when the command and all it
// started are gone; Wait waits for them.
type Process struct {
	pumps [2]*pump // stdout, stderr
	done  chan struct{}
	exit  Exit
	err   error
}

// Start is the first half of [Hosts.Run]; [Process.Wait] is the other.
func (h *Hosts) Start(ctx context.Context, c Command) (*Process, error) {
	h.wake()
	host, err := h.take(ctx)
	if err != nil {
		h.settle()
		return nil, protocol.Errorf(protocol.CodeAgentError, "%w", err)
	}
	pipes, err := openPipes(c.Report != nil)
	if err != nil {
		h.put(host)
		h.settle()
		return nil, protocol.Errorf(protocol.CodeAgentError, "start command: %w", err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	out := &outlet{sink: c.Output, cancel: cancel}
	p := &Process{done: make(chan struct{})}
	p.pumps[0], p.pumps[1] = out.pump(pipes.stdout.here, Stdout), out.pump(pipes.stderr.here, Stderr)
	go func() {
		defer close(p.done)
		defer h.settle()
		defer cancel(nil)
		p.exit, p.err = p.run(ctx, host, &c, pipes)
	}()
	return p, nil
}

// Done is closed when the command and all it started are gone.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait waits for that, and says how the command ended.
func (p *Process) Wait() (Exit, error) {
	<-p.done
	return p.exit, p.err
}

// Drain returns when everything that was written before the call has been passed
// to Output.
func (p *Process) Drain() {
	for _, pump := range p.pumps {
		pump.drain()
	}
}

func (p *Process) run(ctx context.Context, host *Host, c *Command, pipes *pipes) (Exit, error) {
	pumps := p.pumps[:]
	if c.Report != nil {
		pumps = append(pumps, &pump{from: pipes.report.here, sink: c.Report, done: make(chan struct{})})
	}
	var wg sync.WaitGroup
	wg.Go(func() { feed(pipes.stdin.here, c.Stdin) })
	for _, pump := range pumps {
		wg.Go(pump.run)
	}
	result, err := host.run(ctx, &runRequest{Argv: c.Argv, Env: c.Env, Dir: c.Dir}, pipes)
	clean := err == nil || ctx.Err() != nil && result != nil
	if clean {
		host.hosts.put(host)
	} else {
		host.destroy()
	}
	// Nothing of this run holds the other ends of the pipes now. But a command may
	// have handed its own to one of another run (over a Unix socket in /tmp), so
	// the pumps must not wait for all writers to be gone.
	_ = pipes.stdin.here.Close()
	if closer, ok := c.Stdin.(io.Closer); ok {
		_ = closer.Close()
	}
	for _, pump := range pumps {
		pump.end()
	}
	wg.Wait()
	pipes.close()
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
		var files []*os.File
		files, recvErr = host.conn.Recv(&answer)
		fdpass.CloseAll(files) // none is expected
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
