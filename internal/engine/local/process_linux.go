package local

import (
	"errors"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"carrel/internal/engine"
	"carrel/internal/fdpass"
	"carrel/internal/jail"
	"carrel/internal/workspace"
	"carrel/protocol"
)

// process is one worker. Two goroutines belong to it, one that waits for its end
// and one that reads its log; both end with it, and Done tells.
type process struct {
	engine  *Engine
	child   *jail.Child
	control *jail.Control
	stream  stream
	stderr  *os.File
	steps   []jail.StepTime

	done chan struct{}
	exit protocol.ExitCause // valid once done is closed

	dirMu sync.Mutex
	dir   *workspace.Dir // open until done: nobody removes it under the worker
}

var _ engine.Process = (*process)(nil)

// PID implements [engine.Process].
func (p *process) PID() int { return p.child.PID }

// Stream implements [engine.Process].
func (p *process) Stream() io.ReadWriteCloser { return &p.stream }

// Kill implements [engine.Process]: killing PID 1 ends its PID namespace.
func (p *process) Kill() { p.child.Kill() }

// Done implements [engine.Process].
func (p *process) Done() <-chan struct{} { return p.done }

// Exit implements [engine.Process].
func (p *process) Exit() protocol.ExitCause { return p.exit }

// Steps tells how long each step of the start took, in order.
func (p *process) Steps() []jail.StepTime { return p.steps }

// watch starts the process's goroutines.
func (p *process) watch() {
	logged := make(chan struct{})
	go func() {
		defer close(logged)
		log := &logWriter{logger: p.engine.o.Logger, attrs: []any{"process", "worker", "pid", p.child.PID}}
		_, _ = io.Copy(log, p.stderr)
		log.flush()
	}()
	go func() {
		defer close(p.done)
		status := <-p.child.Exit
		<-logged // every writer of it is dead
		p.exit = exitCause(status)
		p.release()
	}()
}

// release gives back what the host held for the process.
func (p *process) release() {
	p.control.Close()
	_ = p.stderr.Close()
	_ = p.child.PidFD.Close()
	p.closeDir()
}

func (p *process) closeDir() {
	p.dirMu.Lock()
	defer p.dirMu.Unlock()
	if p.dir != nil {
		_ = p.dir.Close()
	}
}

// abandon ends a process whose start failed.
func (p *process) abandon() {
	_ = p.stream.Close()
	if p.child != nil {
		p.child.Kill()
		<-p.done
		return
	}
	if p.control != nil {
		p.control.Close()
	}
	fdpass.CloseAll([]*os.File{p.stderr})
	p.closeDir()
}

func exitCause(s unix.WaitStatus) protocol.ExitCause {
	if !s.Signaled() {
		code := s.ExitStatus()
		return protocol.ExitCause{ExitCode: &code}
	}
	return protocol.ExitCause{Signal: unix.SignalName(s.Signal()), Seccomp: s.Signal() == unix.SIGSYS}
}

// stream is the worker's stdout to read and stdin to write.
type stream struct {
	stdin, stdout *os.File
}

func (s *stream) Read(p []byte) (int, error)  { return s.stdout.Read(p) }
func (s *stream) Write(p []byte) (int, error) { return s.stdin.Write(p) }

func (s *stream) Close() error {
	var errs []error
	for _, f := range []*os.File{s.stdin, s.stdout} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}
