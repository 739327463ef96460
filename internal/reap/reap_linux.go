// Package reap starts children and waits for them, and for every orphan that
// comes to this process as PID 1 or as a child subreaper.
//
// One goroutine waits for all of them. os/exec cannot be used beside it: its
// own wait for one child and ours for any child would steal from each other.
package reap

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Exit is how a child ended and what it used.
type Exit struct {
	Status unix.WaitStatus
	Usage  unix.Rusage
}

// Reaper owns two goroutines, each with a thread of its own: one forks, since
// Pdeathsig fires when the forking thread ends (golang/go#27505), and one waits.
// They live as long as the process: a Reaper is made once, by a main.
type Reaper struct {
	starts chan func()

	mu       sync.Mutex
	started  sync.Cond // a child was started: there is something to wait for
	children map[int]chan Exit
	// empty is closed, and replaced, whenever the kernel says that there is no
	// child left at all, orphans included.
	empty chan struct{}
}

// New starts a Reaper.
func New() *Reaper {
	r := &Reaper{
		starts:   make(chan func()),
		children: make(map[int]chan Exit),
		empty:    make(chan struct{}),
	}
	r.started.L = &r.mu
	go r.fork()
	go r.wait()
	return r
}

// Start forks and executes path. The channel gives the child's end once.
func (r *Reaper) Start(path string, argv []string, attr *syscall.ProcAttr) (pid int, exit <-chan Exit, err error) {
	done := make(chan struct{})
	r.starts <- func() {
		defer close(done)
		// Held across fork and registration, so that the end of a child that
		// dies at once is not taken for an orphan's.
		r.mu.Lock()
		defer r.mu.Unlock()
		pid, err = syscall.ForkExec(path, argv, attr)
		if err != nil {
			err = fmt.Errorf("start %s: %w", path, err)
			return
		}
		ch := make(chan Exit, 1)
		r.children[pid] = ch
		exit = ch
		r.started.Signal()
	}
	<-done
	return pid, exit, err
}

// Empty returns a channel that is closed once no child is left, orphans
// included. It looks at the kernel's answer after the call, never at an old one.
func (r *Reaper) Empty() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.started.Signal()
	return r.empty
}

func (r *Reaper) fork() {
	runtime.LockOSThread() // for ever: see Reaper
	for start := range r.starts {
		start()
	}
}

func (r *Reaper) wait() {
	runtime.LockOSThread() // blocks in wait4 nearly always; no point in moving
	for {
		var e Exit
		pid, err := unix.Wait4(-1, &e.Status, 0, &e.Usage)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil: // ECHILD
			r.sleepUntilStart()
		default:
			r.deliver(pid, e)
		}
	}
}

func (r *Reaper) sleepUntilStart() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.children) > 0 {
		return // started between wait4's answer and the lock
	}
	close(r.empty)
	r.empty = make(chan struct{})
	r.started.Wait()
}

func (r *Reaper) deliver(pid int, e Exit) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if ch, ok := r.children[pid]; ok {
		delete(r.children, pid)
		ch <- e
	}
}
