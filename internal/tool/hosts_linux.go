package tool

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"carrel/internal/fdpass"
	"carrel/internal/jail"
	"carrel/internal/reap"
)

// idleHosts is how many tool hosts are kept for the next run. One serves a user
// whose runs come one after the other; the second one covers two at a time.
const idleHosts = 2

// restAfter is how long the hosts of a worker without a command are kept. One costs
// about 1.5 MiB in all for as long as it is there (internal/ordeal measures it), and
// some 15 ms to start again; the pauses between the commands of a run are shorter,
// most of them.
const restAfter = 5 * time.Second

// Hosts is the worker's set of tool hosts. All methods are safe for concurrent
// use. A goroutine started by Warm ends with the start it makes; the timer of its
// rest with the process.
type Hosts struct {
	reaper  *reap.Reaper
	limits  jail.Limits
	missing []string

	mu      sync.Mutex
	idle    []*Host
	warming chan struct{} // closed when the start that Warm makes is over; nil = none is
	busy    int           // commands, and the start that Warm makes
	resting *time.Timer   // runs while busy is 0
}

// NewHosts makes an empty set. The reaper is the worker's own.
func NewHosts(r *reap.Reaper, l jail.Limits, missing []string) *Hosts {
	h := &Hosts{reaper: r, limits: l, missing: missing}
	h.resting = time.AfterFunc(restAfter, h.rest)
	return h
}

// Host is one tool host, used by one goroutine.
type Host struct {
	hosts *Hosts
	conn  *fdpass.Conn
	pid   int
	exit  <-chan reap.Exit
}

// Warm starts a host ahead of need, unless one is there or on its way, and returns at
// once. A failure is not told here: the command that needs a host meets it again.
func (h *Hosts) Warm(ctx context.Context) {
	warm := make(chan struct{})
	h.mu.Lock()
	if len(h.idle) > 0 || isOpen(h.warming) {
		h.mu.Unlock()
		return
	}
	h.warming = warm
	h.mu.Unlock()
	h.wake()
	go func() {
		defer h.settle()
		defer close(warm)
		if host, err := h.start(ctx); err == nil {
			h.put(host)
		}
	}()
}

// isOpen reports whether there is such a channel and nobody has closed it.
func isOpen(c <-chan struct{}) bool {
	select {
	case <-c:
		return false
	default:
		return c != nil
	}
}

// wake and settle stand around whatever uses hosts.
func (h *Hosts) wake() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.busy++
	h.resting.Stop()
}

func (h *Hosts) settle() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.busy--
	if h.busy == 0 {
		h.resting.Reset(restAfter)
	}
}

// rest lets the idle hosts go: a worker may be idle for minutes, and there may be a
// thousand. Its own memory it keeps: debug.FreeOSMemory was tried, and the
// collection it forces leaves more behind than it gives back.
func (h *Hosts) rest() {
	h.mu.Lock()
	if h.busy > 0 { // a command came at the same moment
		h.mu.Unlock()
		return
	}
	idle := h.idle
	h.idle = nil
	h.mu.Unlock()
	for _, host := range idle {
		host.end()
	}
}

func (h *Hosts) take(ctx context.Context) (*Host, error) {
	// The first command often comes while its host is on the way: a second one
	// beside it would make both late, and stay for as long as the worker.
	h.mu.Lock()
	warm := h.warming
	h.warming = nil // the next to come needs one of his own
	h.mu.Unlock()
	if warm != nil {
		select {
		case <-warm:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	for host := h.takeIdle(); host != nil; host = h.takeIdle() {
		select {
		case <-host.exit: // killed while it was idle, by the kernel for its memory say
			_ = host.conn.Close()
		default:
			return host, nil
		}
	}
	return h.start(ctx)
}

func (h *Hosts) takeIdle() *Host {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := len(h.idle)
	if n == 0 {
		return nil
	}
	host := h.idle[n-1]
	h.idle = h.idle[:n-1]
	return host
}

// put keeps a clean host for the next run, or ends it.
func (h *Hosts) put(host *Host) {
	h.mu.Lock()
	keep := len(h.idle) < idleHosts
	if keep {
		h.idle = append(h.idle, host)
	}
	h.mu.Unlock()
	if !keep {
		host.end()
	}
}

func (h *Hosts) start(ctx context.Context) (*Host, error) {
	conn, theirs, err := fdpass.Pair()
	if err != nil {
		return nil, fmt.Errorf("start tool host: %w", err)
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start tool host: %w", err), theirs.Close(), conn.Close())
	}
	defer func() { _ = null.Close() }()
	attr := &syscall.ProcAttr{
		Dir:   "/",                      // not the workspace: its owner may have closed it to himself, and must be able to open it
		Env:   []string{"GOMAXPROCS=2"}, // a waiter needs no more threads
		Files: []uintptr{null.Fd(), null.Fd(), uintptr(syscall.Stderr), theirs.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	}
	host := &Host{hosts: h, conn: conn}
	host.pid, host.exit, err = h.reaper.Start(jail.WorkerPath, []string{"carrel-worker", ModeHost}, attr)
	// Before the greeting: as long as its end is open here too, the line of a host
	// that dies before it answers has no end, and the command waits until its time
	// is up.
	_ = theirs.Close()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start tool host: %w", err), conn.Close())
	}
	if err := host.greet(ctx); err != nil {
		host.destroy()
		return nil, fmt.Errorf("start tool host: %w", err)
	}
	return host, nil
}

func (host *Host) greet(ctx context.Context) error {
	r, err := host.ask(ctx, hello{Limits: host.hosts.limits, Missing: host.hosts.missing})
	if err == nil && r.Error != "" {
		err = errors.New(r.Error)
	}
	return err
}

// ask sends a message and waits for its reply. After an error, ctx's cause among
// them, the host is of no more use.
func (host *Host) ask(ctx context.Context, message any) (reply, error) {
	stop := context.AfterFunc(ctx, func() { _ = host.conn.SetDeadline(time.Unix(1, 0)) })
	var r reply
	err := host.conn.Send(message)
	if err == nil {
		var files []*os.File
		files, err = host.conn.Recv(&r)
		fdpass.CloseAll(files) // none is expected
	}
	if !stop() {
		err = context.Cause(ctx)
	}
	return r, err
}

// end lets an idle, clean host go.
func (host *Host) end() {
	_ = host.conn.Close()
	<-host.exit
}

// destroy kills a host that does not answer, or is dead, and everything of its
// run. Its commands' processes are orphans then, and PID 1's own children.
func (host *Host) destroy() {
	host.hosts.reaper.Kill(host.pid, unix.SIGKILL)
	_ = host.conn.Close()
	<-host.exit
	host.hosts.killOrphans()
}
