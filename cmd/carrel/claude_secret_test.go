package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"carrel/internal/anthropictest"
	"carrel/protocol"
)

// searchSandbox looks for the key from where tools are: it knows only the beginning,
// so its own command line is no find. It plants one that must be found.
const searchSandbox = `echo canary-5f > planted; { grep -r -a -s -l canary-5f /proc/[0-9]*/environ /proc/[0-9]*/task/*/environ \
	/proc/1/mem /proc/1/cmdline /etc /dev/shm /tmp /workspace /run /home; env | grep canary; } | grep -v /proc/self
	ls -l /proc/[0-9]*/fd 2>/dev/null | grep -c socket:; echo searched`

// The key of a real model's run: the upstream gets it, and nothing on the sandbox's
// side of the broker does. Everything below the daemon is searched while an answer
// streams and a tool runs, everything it wrote once it has ended. Two other secrets of
// the daemon's environment are the same text.
func TestKeyReachesTheUpstreamAndNothingElse(t *testing.T) {
	hold := make(chan struct{})
	script := turns(step{
		message: "marker-in-worker-memory",
		calls:   []anthropictest.Block{bash("t1", searchSandbox), bash("t2", "sleep 1000 & echo started")},
		results: []string{"/workspace/planted\n", "started"}, answer: "Found nothing.",
	})
	script[1].Reply.Fault.Hold = hold
	s := play(t, script, "SANDBOX_ALLOWED_ENV_VARS=LANG", "SANDBOX_WARM_WORKERS=1", "CARREL_LOG_LEVEL=debug")
	run := s.execute("ana", "marker-in-worker-memory")
	s.until(run.RunID, 0, "Found nothing.")

	for _, q := range s.model.Requests() {
		if q.Header.Get("X-Api-Key") != canary || bytes.Contains(q.Body, []byte(canary)) {
			t.Errorf("the upstream got the headers %v", q.Header)
		}
	}
	if !memoryHolds(s.cmd.Process.Pid, canary) {
		t.Fatal("the search does not find what the daemon's memory holds")
	}
	worker := workerOf(s.daemon, "ana").PID
	if os.Geteuid() == 0 && !memoryHolds(worker, "marker-in-worker-memory") {
		t.Fatal("the search does not find what the worker's memory holds")
	}
	tree := s.tree()
	if len(tree) < 5 || !slices.Contains(tree, worker) { // spawner, warm worker, worker, tool host, shell, sleep
		t.Fatalf("the daemon's tree is %v", tree)
	}
	for _, pid := range tree {
		s.searchProcess(pid)
	}
	close(hold)
	result := s.result(run.RunID)
	for line := range strings.Lines(result.ToolCalls[0].Result) {
		if strings.Contains(line, "environ") || strings.Contains(line, "canary") || strings.Contains(line, "mem") || strings.Contains(line, "/home") {
			t.Errorf("found by a tool: %s", line)
		}
	}
	s.searchRecord(run.RunID)
	s.stop()
	s.searchFiles()
	if strings.Contains(s.log.String(), canary) {
		t.Error("the log holds the key")
	}
}

// searchProcess looks for the key in a process below the daemon, from outside.
func (s *stage) searchProcess(pid int) {
	s.t.Helper()
	proc := filepath.Join("/proc", itoa(pid))
	for _, name := range []string{"environ", "cmdline"} {
		b, _ := os.ReadFile(filepath.Join(proc, name)) // closed to an ordinary user
		if bytes.Contains(b, []byte(canary)) {
			s.t.Errorf("process %d: its %s holds the key", pid, name)
		}
	}
	open, _ := filepath.Glob(filepath.Join(proc, "fd", "*"))
	for _, fd := range open {
		to, _ := os.Readlink(fd)
		if strings.HasPrefix(to, s.base) && strings.Contains(to, "carrel.db") {
			s.t.Errorf("process %d has the database open: %s", pid, to)
		}
		if info, err := os.Stat(fd); err == nil && info.Mode().IsRegular() && info.Size() < 1<<20 {
			if b, err := os.ReadFile(fd); err == nil && bytes.Contains(b, []byte(canary)) {
				s.t.Errorf("process %d has %s open, which holds the key", pid, to)
			}
		}
	}
	if memoryHolds(pid, canary) {
		s.t.Errorf("process %d: its memory holds the key", pid)
	}
}

// searchRecord looks for the key in what the API tells.
func (s *stage) searchRecord(runID string) {
	s.t.Helper()
	events, err := json.Marshal(s.events(runID, 0))
	if err != nil || bytes.Contains(events, []byte(canary)) {
		s.t.Errorf("the events hold the key, or %v", err)
	}
	for _, path := range []string{
		"/v1/system", "/v1/sandboxes", "/v1/runs", "/v1/runs/" + runID, "/v1/users/ana/sessions/s", "/v1/users/ana/sandbox", "/metrics",
	} {
		if _, body := s.get(path, nil); bytes.Contains(body, []byte(canary)) {
			s.t.Errorf("%s tells the key", path)
		}
	}
	got, err := s.client.Exec(s.t.Context(), "ana", protocol.ExecRequest{Command: protocol.Command{Shell: "env; cat /proc/self/environ"}})
	if err != nil || strings.Contains(got.Stdout, canary) {
		s.t.Errorf("a command sees %+v, %v", got, err)
	}
}

// searchFiles looks for the key in all that a daemon leaves, its database among it.
func (s *stage) searchFiles() {
	s.t.Helper()
	files := 0
	err := filepath.WalkDir(s.base, func(path string, e os.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		files++
		b, err := os.ReadFile(path)
		if bytes.Contains(b, []byte(canary)) {
			s.t.Errorf("%s holds the key", path)
		}
		return err
	})
	if err != nil || files < 3 { // database, transcript, planted
		s.t.Errorf("%d files, %v", files, err)
	}
}
