package tool

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"carrel/internal/fdpass"
	"carrel/internal/jail"
	"carrel/internal/reap"
)

// ServeHost is the tool host process. line is its inherited line to the worker;
// it returns when the worker's end is closed.
func ServeHost(line *os.File) error {
	conn, err := fdpass.New(line)
	if err != nil {
		return fmt.Errorf("tool host: %w", err)
	}
	var h hello
	if _, err := conn.Recv(&h); err != nil {
		return fmt.Errorf("tool host: %w", err)
	}
	if err := jail.EnterTool(h.Limits, h.Missing); err != nil {
		_ = conn.Send(reply{Error: err.Error()})
		return fmt.Errorf("tool host: %w", err)
	}
	if err := conn.Send(reply{}); err != nil {
		return fmt.Errorf("tool host: %w", err)
	}
	// A daemon started by nohup or in a script's background ignores these two, and
	// what is ignored stays so over every exec. A handler does not.
	signal.Notify(make(chan os.Signal, 1), unix.SIGHUP, unix.SIGINT)
	s := &hostServer{conn: conn, reaper: reap.New()}
	for {
		var req request
		files, err := conn.Recv(&req)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("tool host: %w", err)
		}
		s.serve(&req, files)
	}
}

// hostServer has a goroutine while a command runs; it ends with the command.
type hostServer struct {
	conn   *fdpass.Conn
	reaper *reap.Reaper

	mu    sync.Mutex
	group int // process group of the running command; 0 = none
}

func (s *hostServer) serve(req *request, files []*os.File) {
	defer fdpass.CloseAll(files)
	switch {
	case req.Run != nil && len(files) >= 3:
		s.run(req.Run, files)
	case req.File != nil:
		// In this goroutine: nothing else is asked of a host meanwhile. Whoever
		// cannot wait for it kills it.
		result := doFile(req.File)
		_ = s.conn.Send(reply{File: &result})
	case req.Kill:
		s.killAll()
	case req.Signal > 0:
		s.mu.Lock()
		defer s.mu.Unlock()
		if group := s.group; group > 0 {
			s.reaper.Do(func() { _ = unix.Kill(-group, unix.Signal(req.Signal)) })
		}
	}
}

// run starts the command and returns; its outcome is sent when it and all it
// started have ended.
func (s *hostServer) run(run *runRequest, files []*os.File) {
	exit, failed := s.start(run, files)
	if failed != nil {
		_ = s.conn.Send(reply{Outcome: failed})
		return
	}
	go func() {
		e := <-exit
		s.mu.Lock()
		s.group = 0
		s.mu.Unlock()
		s.killAll()
		<-s.reaper.Empty()
		_ = s.conn.Send(reply{Outcome: &outcome{Code: e.Code(), Signal: e.Signal()}})
	}()
}

// killAll kills from the one thread whose domain all commands are in.
func (s *hostServer) killAll() { s.reaper.Do(func() { _ = jail.KillTier() }) }

func (s *hostServer) start(run *runRequest, files []*os.File) (<-chan reap.Exit, *outcome) {
	if info, err := os.Stat(run.Dir); err != nil || !info.IsDir() {
		return nil, &outcome{Code: codeCannotRun, NotStarted: "cannot change to directory " + run.Dir}
	}
	path, err := lookPath(run.Argv[0], run.Dir, run.Env)
	if err != nil {
		return nil, notStarted(run.Argv[0], err)
	}
	attr := &syscall.ProcAttr{Dir: run.Dir, Env: run.Env, Sys: &syscall.SysProcAttr{Setsid: true}}
	for _, f := range files {
		attr.Files = append(attr.Files, f.Fd())
	}
	// Held over the start, so that a signal that comes at once finds the group.
	s.mu.Lock()
	defer s.mu.Unlock()
	pid, exit, err := s.reaper.Start(path, run.Argv, attr)
	if err != nil {
		return nil, notStarted(run.Argv[0], err)
	}
	s.group = pid // setsid made it the leader of its own group
	return exit, nil
}
