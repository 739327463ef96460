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
	"unsafe"

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

// Do runs f on the thread that forks, and waits for it. It must not start anything.
//
// Signals to children go from there. Where every thread of a process enters
// Landlock by itself, each gets a domain of its own, and a domain that is scoped
// may signal only what stands below it: children stand below the one thread that
// forked them, and for all others they are strangers (EPERM).
func (r *Reaper) Do(f func()) {
	done := make(chan struct{})
	r.starts <- func() {
		defer close(done)
		f()
	}
	<-done
}

// Kill sends a signal to a child of [Reaper.Start], unless that has ended: its
// pid may then be another's.
func (r *Reaper) Kill(pid int, sig unix.Signal) {
	r.Do(func() {
		r.mu.Lock() // held over a child's reaping as well, see wait
		defer r.mu.Unlock()
		if _, lives := r.children[pid]; lives {
			_ = unix.Kill(pid, sig)
		}
	})
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
	runtime.LockOSThread() // blocks in waitid nearly always; no point in moving
	for {
		// Only a look: the dead child keeps its pid until deliver has the lock.
		var info unix.Siginfo
		err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOWAIT, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil: // ECHILD
			r.sleepUntilStart()
		default:
			r.deliver(deadPID(&info))
		}
	}
}

// deadPID is si_pid, which x/sys has no field for: it follows three ints and, on
// 64-bit machines, four bytes that align the union it is in (sigaction(2)).
func deadPID(info *unix.Siginfo) int {
	return int(*(*int32)(unsafe.Add(unsafe.Pointer(info), 16)))
}

func (r *Reaper) sleepUntilStart() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.children) > 0 {
		return // started between waitid's answer and the lock
	}
	close(r.empty)
	r.empty = make(chan struct{})
	r.started.Wait()
}

// deliver reaps a child that has ended and tells who waits for it, if any.
func (r *Reaper) deliver(pid int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var e Exit
	if got, err := unix.Wait4(pid, &e.Status, unix.WNOHANG, &e.Usage); err != nil || got != pid {
		return // EINTR: the next look finds it again
	}
	if ch, ok := r.children[pid]; ok {
		delete(r.children, pid)
		ch <- e
	}
}
