package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"carrel/client"
	"carrel/protocol"
)

// canary is a secret of the daemon's: it must be found nowhere else.
const canary = "canary-5f1d0c"

// patience bounds every wait for something that must happen.
const patience = 30 * time.Second

// programs finds the two programs under test, built without cgo: the gate's, or
// ones that are built now.
var programs = sync.OnceValues(func() (string, error) {
	if worker := os.Getenv("SANDBOX_WORKER_PATH"); worker != "" {
		return filepath.Dir(worker), nil
	}
	dir, err := os.MkdirTemp("", "carrel-e2e-")
	if err != nil {
		return "", err
	}
	build := exec.Command("go", "build", "-buildvcs=false", "-o", dir+"/", "carrel/cmd/carrel", "carrel/cmd/carrel-worker")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	return dir, os.Chmod(dir, 0o755)
})

func program(t *testing.T) string {
	t.Helper()
	dir, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "carrel")
}

// environment is a daemon's: with a secret, and nothing of the test's own.
func environment(baseDir string, more ...string) []string {
	env := []string{
		"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "PLANTED_SECRET=" + canary, "DATABASE_PASSWORD=" + canary,
		"CARREL_LISTEN=127.0.0.1:0", "SANDBOX_BASE_DIR=" + baseDir,
	}
	if isolation := os.Getenv("SANDBOX_ISOLATION"); isolation != "" { // an old kernel's, scripts/qemu-cgroup2.sh
		env = append(env, "SANDBOX_ISOLATION="+isolation)
	}
	return append(env, more...)
}

// daemon is a running `carrel serve`.
type daemon struct {
	t      *testing.T
	cmd    *exec.Cmd
	url    string
	client *client.Client
	log    *lockedBuffer
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

var announced = regexp.MustCompile(`listens on (http://\S+)`)

func serve(t *testing.T, baseDir string, more ...string) *daemon {
	t.Helper()
	d := &daemon{t: t, log: &lockedBuffer{}}
	d.cmd = exec.Command(program(t), "serve") //nolint:noctx // ended by stop or the test's cleanup
	d.cmd.Env = environment(baseDir, more...)
	d.cmd.Stderr = d.log
	stdout, err := d.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = d.cmd.Process.Kill()
		_ = d.cmd.Wait()
		if t.Failed() {
			t.Logf("log of the daemon:\n%s", d.log)
		}
	})
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		if m := announced.FindStringSubmatch(lines.Text()); m != nil {
			d.url = m[1]
			break
		}
	}
	if d.url == "" {
		t.Fatalf("the daemon did not say where it listens:\n%s", d.log)
	}
	go func() { _, _ = io.Copy(io.Discard, stdout) }()
	if d.client, err = client.New(d.url, client.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.client.Close)
	return d
}

// stop ends the daemon as an operator does, and reports how it went.
func (d *daemon) stop() {
	d.t.Helper()
	tree := d.tree()
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		d.t.Fatal(err)
	}
	if err := d.cmd.Wait(); err != nil {
		d.t.Errorf("the daemon ended with %v", err)
	}
	gone(d.t, tree)
}

// tree is every process that the daemon has started, by its children.
func (d *daemon) tree() []int {
	d.t.Helper()
	var pids []int
	for next := []int{d.cmd.Process.Pid}; len(next) > 0; {
		children := childrenOf(d.t, next[0])
		pids = append(pids, children...)
		next = append(next[1:], children...)
	}
	return pids
}

func childrenOf(t *testing.T, pid int) []int {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, task := range tasks {
		b, _ := os.ReadFile(task) // a thread may just have ended
		for field := range strings.FieldsSeq(string(b)) {
			child, err := strconv.Atoi(field)
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, child)
		}
	}
	return pids
}

// gone waits until none of the processes is left.
func gone(t *testing.T, pids []int) {
	t.Helper()
	eventually(t, fmt.Sprintf("the processes %v are gone", pids), func() bool {
		for _, pid := range pids {
			stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			if err == nil && !strings.Contains(string(stat), ") Z ") {
				return false
			}
		}
		return true
	})
}

func eventually(t *testing.T, claim string, holds func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-ctx.Done():
			t.Fatalf("it did not come true that %s", claim)
		case <-tick.C:
		}
	}
}

// script runs a message of a user and returns its result.
func (d *daemon) script(user, message string) protocol.Result {
	d.t.Helper()
	body, err := json.Marshal(protocol.ExecuteRequest{UserID: user, Message: message})
	if err != nil {
		d.t.Fatal(err)
	}
	status, answer := d.post("/v1/execute", string(body), nil)
	var result protocol.Result
	if err := json.Unmarshal(answer, &result); err != nil || status != http.StatusOK {
		d.t.Fatalf("execute for %q: status %d, %s", user, status, answer)
	}
	return result
}

// start sets a run going and waits until text of it has come.
func (d *daemon) start(user, message, text string) protocol.Run {
	d.t.Helper()
	run, err := d.client.Execute(d.t.Context(), protocol.ExecuteRequest{UserID: user, Message: message}, client.ExecuteOptions{})
	if err != nil {
		d.t.Fatal(err)
	}
	for ev, err := range d.client.Events(d.t.Context(), run.RunID, 0) {
		if err != nil {
			d.t.Fatal(err)
		}
		if strings.Contains(string(ev.Data), text) {
			return run
		}
	}
	d.t.Fatalf("run %s ended without %q", run.RunID, text)
	return run
}

// events reads a run to its end and checks that seqs have no gap.
func (d *daemon) events(runID string, after int64) []protocol.Event {
	d.t.Helper()
	var events []protocol.Event
	for ev, err := range d.client.Events(d.t.Context(), runID, after) {
		if err != nil {
			d.t.Fatal(err)
		}
		if want := after + int64(len(events)) + 1; ev.Seq != want {
			d.t.Fatalf("run %s: seq %d where %d belongs", runID, ev.Seq, want)
		}
		events = append(events, ev)
	}
	return events
}

// ending is the RUN_ERROR that a run ended with.
func (d *daemon) ending(runID string) protocol.RunError {
	d.t.Helper()
	events := d.events(runID, 0)
	if len(events) == 0 || events[len(events)-1].Type != protocol.EventRunError {
		d.t.Fatalf("run %s did not end in an error: %v", runID, events)
	}
	var e protocol.RunError
	if err := json.Unmarshal(events[len(events)-1].Data, &e); err != nil {
		d.t.Fatal(err)
	}
	return e
}

func (d *daemon) post(path, body string, header http.Header) (int, []byte) {
	d.t.Helper()
	req, err := http.NewRequestWithContext(d.t.Context(), http.MethodPost, d.url+path, strings.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	maps.Copy(req.Header, header)
	return d.do(req)
}

func (d *daemon) get(path string, header http.Header) (int, []byte) {
	d.t.Helper()
	req, err := http.NewRequestWithContext(d.t.Context(), http.MethodGet, d.url+path, http.NoBody)
	if err != nil {
		d.t.Fatal(err)
	}
	maps.Copy(req.Header, header)
	return d.do(req)
}

func (d *daemon) do(req *http.Request) (int, []byte) {
	d.t.Helper()
	resp, err := http.DefaultClient.Do(req) //nolint:forbidigo // a test's own requests
	if err != nil {
		d.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return resp.StatusCode, body
}

// command runs the command line to its end.
func command(t *testing.T, env []string, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program(t), args...)
	cmd.Env = env
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return out.String(), errOut.String(), cmd.ProcessState.ExitCode()
}
