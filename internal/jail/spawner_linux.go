package jail

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"carrel/internal/fdpass"
	"carrel/internal/reap"
)

// ModeSpawner is the argument that makes carrel-worker a spawner.
const ModeSpawner = "spawner"

// Child is a PID 1 that was cloned and waits for its plan.
type Child struct {
	PID   int
	PidFD *os.File // for a kill that can hit no other process
	// Exit gives the wait status once, after the whole PID namespace is gone.
	Exit <-chan unix.WaitStatus
}

// Spawner is the daemon's end of the spawner process. It has two goroutines of
// its own, one that keeps the thread the process was started from (Pdeathsig)
// and one that reads its replies; both end with the process, and Close waits.
type Spawner struct {
	conn *fdpass.Conn
	done chan struct{} // the process is gone
	wg   sync.WaitGroup

	mu      sync.Mutex
	lastID  uint64
	gone    bool
	asked   map[uint64]chan answer
	running map[uint64]chan unix.WaitStatus
}

// answer is what a request brought: a child, an IDMap or an error.
type answer struct {
	child *Child
	idMap *IDMap
	err   error
}

// discard lets go of an answer that nobody waits for any more.
func (a answer) discard() {
	if a.child != nil {
		a.child.Kill()
		fdpass.CloseAll([]*os.File{a.child.PidFD})
	}
	if a.idMap != nil {
		a.idMap.Close()
	}
}

// errSpawnerGone is what a start gets when the spawner ended under it.
var errSpawnerGone = errors.New("the spawner process is gone")

// StartSpawner starts `worker spawner` with an empty environment.
func StartSpawner(worker string, log io.Writer) (*Spawner, error) {
	conn, theirs, err := fdpass.Pair()
	if err != nil {
		return nil, fmt.Errorf("start spawner: %w", err)
	}
	defer func() { _ = theirs.Close() }()
	s := &Spawner{
		conn:    conn,
		done:    make(chan struct{}),
		asked:   make(map[uint64]chan answer),
		running: make(map[uint64]chan unix.WaitStatus),
	}
	cmd := exec.Command(worker, ModeSpawner) //nolint:noctx // it ends by Close or with this process
	cmd.Env = []string{}
	cmd.Stderr = log
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setsid: true}
	begun := make(chan error, 1)
	s.wg.Go(func() {
		// Pdeathsig fires when the starting thread ends (golang/go#27505): this
		// goroutine keeps it until the spawner is gone.
		runtime.LockOSThread()
		defer close(s.done)
		if err := cmd.Start(); err != nil {
			begun <- err
			return
		}
		begun <- nil
		_ = cmd.Wait() // how it ended is no one's concern: that it did is
	})
	if err := <-begun; err != nil {
		_ = conn.Close()
		s.wg.Wait()
		return nil, fmt.Errorf("start spawner: %w", err)
	}
	s.wg.Go(s.read)
	return s, nil
}

// Done is closed when the spawner process is gone; all its children are then
// dead or dying, since their Pdeathsig is SIGKILL.
func (s *Spawner) Done() <-chan struct{} { return s.done }

// Close ends the spawner process, which kills every sandbox it started, and waits.
func (s *Spawner) Close() {
	_ = s.conn.Close() // the process ends at EOF
	s.wg.Wait()
}

// Spawn clones a PID 1 as host uid hostUID with the given stdin, stdout, stderr
// and control line; cgroup may be nil. The files stay the caller's.
func (s *Spawner) Spawn(ctx context.Context, hostUID int, without []string, stdio [4]*os.File, cgroup *os.File) (*Child, error) {
	files := stdio[:]
	if cgroup != nil {
		files = append(files, cgroup)
	}
	a, err := s.ask(ctx, spawnRequest{HostUID: hostUID, Without: without}, files...)
	return a.child, err
}

// ask sends a request and waits for its answer, or for ctx. The answer's error
// is returned as the error.
func (s *Spawner) ask(ctx context.Context, req spawnRequest, files ...*os.File) (answer, error) {
	reply := make(chan answer, 1)
	s.mu.Lock()
	if s.gone {
		s.mu.Unlock()
		return answer{}, errSpawnerGone
	}
	s.lastID++
	req.ID = s.lastID
	s.asked[req.ID] = reply
	s.mu.Unlock()

	if err := s.conn.Send(req, files...); err != nil {
		s.forget(req.ID)
		return answer{}, fmt.Errorf("ask spawner: %w", err)
	}
	select {
	case a := <-reply:
		return a, a.err
	case <-ctx.Done():
		s.forget(req.ID) // the answer, if it comes, is discarded by read
		select {
		case a := <-reply: // it came at the same moment
			a.discard()
		default:
		}
		return answer{}, context.Cause(ctx)
	}
}

func (s *Spawner) forget(id uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.asked, id)
}

func (s *Spawner) read() {
	for {
		var r spawnReply
		files, err := s.conn.Recv(&r)
		if err != nil {
			s.end()
			return
		}
		if r.Exited {
			s.exited(r)
		} else {
			s.answered(r, files)
		}
	}
}

func (s *Spawner) answered(r spawnReply, files []*os.File) {
	s.mu.Lock()
	defer s.mu.Unlock()
	reply, wanted := s.asked[r.ID]
	delete(s.asked, r.ID)
	var a answer
	switch {
	case r.Error != "":
		a.err = &spawnError{text: r.Error, errno: unix.Errno(r.Errno)}
	case r.IDMap:
		a.idMap, a.err = receiveIDMap(files)
	default:
		exit := make(chan unix.WaitStatus, 1)
		s.running[r.ID] = exit
		a.child = &Child{PID: r.PID, Exit: exit}
		if len(files) > 0 {
			a.child.PidFD = files[0]
		}
	}
	if !wanted {
		a.discard()
		return
	}
	reply <- a
}

func (s *Spawner) exited(r spawnReply) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if exit, ok := s.running[r.ID]; ok {
		delete(s.running, r.ID)
		exit <- unix.WaitStatus(r.Status)
	}
}

// end tells everyone that the spawner is gone, and with it every child: they
// died by the SIGKILL their Pdeathsig sends.
func (s *Spawner) end() {
	_ = s.conn.Close() // after garbage the process still lives: this ends it
	<-s.done
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gone = true
	for id, reply := range s.asked {
		delete(s.asked, id)
		reply <- answer{err: errSpawnerGone}
	}
	for id, exit := range s.running {
		delete(s.running, id)
		exit <- unix.WaitStatus(unix.SIGKILL)
	}
}

// End kills what is left of the child and waits until its whole PID namespace is
// gone. After Exit that is so, but for one case: the spawner itself has died, and
// then its children are only about to.
func (c *Child) End() {
	if c.PidFD == nil {
		return
	}
	c.Kill()
	raw, err := c.PidFD.SyscallConn()
	if err != nil {
		return // closed
	}
	// A pidfd can be read once its process has ended, and PID 1 ends after all others.
	_ = raw.Control(func(fd uintptr) {
		for {
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
			if n > 0 || !errors.Is(err, unix.EINTR) {
				return
			}
		}
	})
}

// Kill sends SIGKILL to PID 1, and so to its whole PID namespace. It may be
// called while PidFD is being closed: the process is gone then.
func (c *Child) Kill() {
	if c.PidFD == nil {
		return
	}
	raw, err := c.PidFD.SyscallConn()
	if err != nil {
		return // closed
	}
	// Control holds the descriptor open meanwhile, so that its number cannot
	// become another process's.
	_ = raw.Control(func(fd uintptr) { _ = unix.PidfdSendSignal(int(fd), unix.SIGKILL, nil, 0) })
}

// ServeSpawner is the spawner process: it clones what it is asked for until the
// daemon's end of the line is closed. control is the inherited line.
func ServeSpawner(control *os.File) error {
	// It stays dumpable: an ordinary user may write the uid map of a child only
	// while the child is. There is nothing in it to hide, and no sandbox sees it.
	path, err := os.Executable()
	if err != nil {
		return fmt.Errorf("spawner: %w", err)
	}
	program, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("spawner: %w", err)
	}
	conn, err := fdpass.New(control)
	if err != nil {
		return fmt.Errorf("spawner: %w", err)
	}
	r := reap.New()
	for {
		var req spawnRequest
		files, err := conn.Recv(&req)
		// A reset: it ended before it had read all of our replies.
		if errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) {
			return nil // the daemon has ended; our children follow us
		}
		if err != nil {
			return fmt.Errorf("spawner: %w", err)
		}
		serve := serveSpawn
		if req.IDMap {
			serve = serveIDMap
		}
		if err := serve(conn, r, program, req, files); err != nil {
			return fmt.Errorf("spawner: %w", err)
		}
	}
}

func serveIDMap(conn *fdpass.Conn, r *reap.Reaper, program *os.File, req spawnRequest, files []*os.File) error {
	fdpass.CloseAll(files) // there are none
	made, err := makeIDMap(r, program)
	if err != nil {
		return conn.Send(failedReply(req.ID, err))
	}
	defer fdpass.CloseAll(made)
	return conn.Send(spawnReply{ID: req.ID, IDMap: true}, made...)
}

func serveSpawn(conn *fdpass.Conn, r *reap.Reaper, program *os.File, req spawnRequest, files []*os.File) error {
	if len(files) < fdFirstOther {
		fdpass.CloseAll(files)
		return errors.New("a request without its descriptors")
	}
	pid, pidfd, exit, err := spawn(r, program, req, files)
	fdpass.CloseAll(files)
	if err != nil {
		return conn.Send(failedReply(req.ID, err))
	}
	defer fdpass.CloseAll([]*os.File{pidfd})
	if err := conn.Send(spawnReply{ID: req.ID, PID: pid}, pidfd); err != nil {
		return err
	}
	go func() { // ends with the child, whose end the reaper always tells
		e := <-exit
		_ = conn.Send(spawnReply{ID: req.ID, Exited: true, Status: uint32(e.Status)})
	}()
	return nil
}
