package local

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"carrel/internal/cgroup"
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
	group   *cgroup.Group // nil where the host gives none
	steps   []jail.StepTime

	oomKills atomic.Int64 // as last read

	done chan struct{}
	exit protocol.ExitCause // valid once done is closed

	slot int // a warm worker's host uid under root, its own until done; else 0

	mu       sync.Mutex
	released bool
	dir      *workspace.Dir // open until done: nobody removes it under the worker
	owners   *jail.IDMap    // a warm worker's under root, until it is bound
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

// Steps implements [engine.Process].
func (p *process) Steps() []engine.StepTime {
	steps := make([]engine.StepTime, len(p.steps))
	for i, s := range p.steps {
		steps[i] = engine.StepTime(s)
	}
	return steps
}

// watch starts the process's goroutines. ctx is for what has to be done whatever
// has ended.
func (p *process) watch(ctx context.Context) {
	logged := make(chan struct{})
	go func() {
		defer close(logged)
		log := &logWriter{ctx: ctx, logger: p.engine.o.Logger, attrs: []any{"process", "worker", "pid", p.child.PID}}
		_, _ = io.Copy(log, p.stderr)
		log.flush()
	}()
	go func() {
		defer close(p.done)
		status := <-p.child.Exit
		p.child.End()
		<-logged // every writer of it is dead
		p.exit = p.exitCause(status)
		p.release(ctx)
	}()
}

// release gives back what the host held for the process; nothing of it lives.
func (p *process) release(ctx context.Context) {
	p.control.Close()
	_ = p.stderr.Close()
	_ = p.child.PidFD.Close()
	p.releaseHeld(p.closeGroup(ctx))
}

// closeGroup removes the process's group and reports whether that is gone. Its PID
// namespace has ended, so there should be nobody left in it: the kill is for what
// we did not think of.
func (p *process) closeGroup(ctx context.Context) bool {
	if p.group == nil {
		return true
	}
	err := errors.Join(p.group.Kill(), p.group.Close(ctx))
	if err != nil {
		p.engine.o.Logger.WarnContext(ctx, "the group of an ended worker is left to the next sweep", "error", err)
	}
	return err == nil
}

// releaseHeld gives back directory, owners and slot, and makes those that come
// later come to nothing. A slot of which somebody may be left is never used again:
// its next worker could be signalled from there.
func (p *process) releaseHeld(isGone bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.released = true
	if p.dir != nil {
		_ = p.dir.Close()
	}
	if p.owners != nil {
		p.owners.Close()
	}
	if p.slot != 0 && isGone {
		p.engine.o.Dirs.GiveSlotUID(p.slot)
	}
}

var errEnded = errors.New("the worker has ended")

// openDir opens the user's directory for as long as the process lives.
func (p *process) openDir(ctx context.Context, userID string) error {
	dir, err := p.engine.o.Dirs.Open(ctx, userID)
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.released {
		return errors.Join(errEnded, dir.Close())
	}
	p.dir = dir
	return nil
}

// takeOwners keeps the translation of owners for Bind.
func (p *process) takeOwners(m *jail.IDMap, err error) error {
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.released {
		m.Close()
		return errEnded
	}
	p.owners = m
	return nil
}

// giveOwners hands it to Bind, whose it is then; nil where there is none.
func (p *process) giveOwners() *jail.IDMap {
	p.mu.Lock()
	defer p.mu.Unlock()
	m := p.owners
	p.owners = nil
	return m
}

// abandon ends a process whose start failed. A clone that comes after its caller
// has given up is killed by the spawner's reader: nothing of anybody's ever runs in
// it, so its slot need not wait.
func (p *process) abandon(ctx context.Context) {
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
	p.releaseHeld(p.closeGroup(ctx))
}

// exitCause puts a wait status into the protocol's words. A SIGKILL that we did
// not send is the kernel's own if its count of such kills has grown since anybody
// looked: commands that it killed earlier are in the count too.
func (p *process) exitCause(s unix.WaitStatus) protocol.ExitCause {
	if !s.Signaled() {
		code := s.ExitStatus()
		return protocol.ExitCause{ExitCode: &code}
	}
	known := p.oomKills.Load()
	return protocol.ExitCause{
		Signal:  unix.SignalName(s.Signal()),
		Seccomp: s.Signal() == unix.SIGSYS,
		OOMKill: s.Signal() == unix.SIGKILL && p.OOMKills() > known,
	}
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
