package ordeal

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"carrel/client"
)

// Patience bounds every wait for something that must happen.
const Patience = 30 * time.Second

// Canary is a secret of every daemon's: it must be found nowhere else.
const Canary = "canary-5f1d0c"

// programs finds the programs under test, built without cgo: the gate's, or ones
// that are built now.
var programs = sync.OnceValues(func() (string, error) { //nolint:gochecknoglobals // built once a test binary
	if worker := os.Getenv("SANDBOX_WORKER_PATH"); worker != "" {
		return filepath.Dir(worker), nil
	}
	dir, err := os.MkdirTemp("", "carrel-e2e-")
	if err != nil {
		return "", err
	}
	for name, pkg := range map[string]string{
		"carrel": "cmd/carrel", "carrel-worker": "cmd/carrel-worker",
		"carrel-attacker": "internal/jail/attack/attacker", "carrel-lesshost": "internal/lesshost",
	} {
		build := exec.Command("go", "build", "-buildvcs=false", "-o", filepath.Join(dir, name), "carrel/"+pkg) //nolint:noctx // once, for all tests
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			return "", fmt.Errorf("build: %w\n%s", err, out)
		}
	}
	return dir, os.Chmod(dir, 0o755) //nolint:gosec // every sandbox's uid walks to the worker in it
})

// Program is the path of a built program: "carrel", "carrel-worker",
// "carrel-attacker" or "carrel-lesshost".
func Program(t testing.TB, name string) string {
	t.Helper()
	dir, err := programs()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, name)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v (make test-programs builds it)", err)
	}
	return path
}

// Environment is a daemon's: with a secret, and nothing of the test's own. What is
// in more comes last, and so wins.
func Environment(baseDir string, more ...string) []string {
	env := []string{
		"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "PLANTED_SECRET=" + Canary, "DATABASE_PASSWORD=" + Canary,
		"CARREL_LISTEN=127.0.0.1:0", "SANDBOX_BASE_DIR=" + baseDir,
	}
	if isolation := os.Getenv("SANDBOX_ISOLATION"); isolation != "" { // an old kernel's, scripts/qemu-cgroup2.sh
		env = append(env, "SANDBOX_ISOLATION="+isolation)
	}
	return append(env, more...)
}

// Daemon is a running `carrel serve`. Its methods that take no testing.TB end the
// test it was started in, and so belong to that test's goroutine.
type Daemon struct {
	Cmd    *exec.Cmd
	URL    string
	Client *client.Client
	Log    *Log
	// Greeting is what it has written to stdout so far.
	Greeting *Log

	t testing.TB
}

// Log is what a daemon has written so far: to stderr, [Daemon.Log].
type Log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

var announced = regexp.MustCompile(`listens on (https?://\S+)`)

// Serve starts a daemon and waits until it listens. The test's cleanup kills it.
func Serve(t testing.TB, baseDir string, more ...string) *Daemon {
	t.Helper()
	return serve(t, exec.Command(Program(t, "carrel"), "serve"), baseDir, more) //nolint:noctx // ended by Stop, Kill or the test's cleanup
}

// ServeOn starts a daemon on a host that lacks something: lacks are what
// carrel-lesshost is to take away.
func ServeOn(t testing.TB, lacks []string, baseDir string, more ...string) *Daemon {
	t.Helper()
	args := slices.Concat(lacks, []string{"--", Program(t, "carrel"), "serve"})
	return serve(t, exec.Command(Program(t, "carrel-lesshost"), args...), baseDir, more) //nolint:noctx // as above
}

// ServeBy starts a daemon by a command that becomes `carrel serve`, as a service manager
// does: with descriptors in cmd.ExtraFiles.
func ServeBy(t testing.TB, cmd *exec.Cmd, baseDir string, more ...string) *Daemon {
	t.Helper()
	return serve(t, cmd, baseDir, more)
}

func serve(t testing.TB, cmd *exec.Cmd, baseDir string, more []string) *Daemon {
	t.Helper()
	d := &Daemon{t: t, Cmd: cmd, Log: &Log{}, Greeting: &Log{}}
	d.Cmd.Env = Environment(baseDir, more...)
	d.Cmd.Stderr = d.Log
	stdout, err := d.Cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		d.Kill()
		removeGroups(t, baseDir)
		if t.Failed() {
			t.Logf("log of the daemon:\n%s", d.Log)
		}
	})
	lines := bufio.NewScanner(io.TeeReader(stdout, d.Greeting))
	for lines.Scan() {
		if m := announced.FindStringSubmatch(lines.Text()); m != nil {
			d.URL = m[1]
			break
		}
	}
	if d.URL == "" {
		t.Fatalf("the daemon did not say where it listens:\n%s", d.Log)
	}
	go func() { _, _ = io.Copy(d.Greeting, stdout) }() // ends with the daemon
	if d.Client, err = client.New(d.URL, client.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Client.Close)
	return d
}

// Stop ends the daemon as an operator does, and reports how it went.
func (d *Daemon) Stop() {
	d.t.Helper()
	tree := d.Tree()
	if err := d.Cmd.Process.Signal(syscall.SIGTERM); err != nil {
		d.t.Fatal(err)
	}
	if err := d.Cmd.Wait(); err != nil {
		d.t.Errorf("the daemon ended with %v", err)
	}
	AwaitGone(d.t, tree)
}

// Kill ends the daemon as nobody should. One that has ended already is no error.
func (d *Daemon) Kill() {
	_ = d.Cmd.Process.Kill()
	_ = d.Cmd.Wait()
}

// Tree is every process that the daemon has started, by its children.
func (d *Daemon) Tree() []int { return Descendants(d.Cmd.Process.Pid) }

// Named are those of its tree whose command line ends with a word.
func (d *Daemon) Named(word string) []int {
	return slices.DeleteFunc(d.Tree(), func(pid int) bool { return !strings.HasSuffix(commandLine(pid), word) })
}

// AwaitGone waits until none of the processes is left.
func AwaitGone(t testing.TB, pids []int) {
	t.Helper()
	Eventually(t, fmt.Sprintf("the processes %v are gone", pids), func() bool { return !slices.ContainsFunc(pids, alive) })
}

// Eventually looks again and again whether a claim holds.
func Eventually(t testing.TB, claim string, holds func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
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
