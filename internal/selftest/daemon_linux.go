package selftest

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"carrel/client"
	"carrel/internal/jail"
	"carrel/internal/jail/attack"
	"carrel/protocol"
)

// patience bounds each wait for something that must happen.
const patience = 30 * time.Second

// daemon is a throw-away `carrel serve`, with a directory of its own and the attacker
// in the worker's place: every run is treated as its message says (attack.Trick).
type daemon struct {
	url    string
	cmd    *exec.Cmd
	dir    string
	lock   *os.File
	client *client.Client // an admin's
	keys   map[string]string
	bobs   things
	open   *daemon // another, without sign-in
	over   chan struct{}
}

// The callers: an admin, the user who attacks, and the user who is attacked.
const (
	admin = "root"
	ana   = "ana"
	bob   = "bob"
)

var announced = regexp.MustCompile(`listens on (http://\S+)`)

// serve starts one with sign-in, and beside it one without.
func (s *session) serve(ctx context.Context) (*daemon, error) {
	open, err := s.start(ctx, nil)
	if err != nil {
		return nil, err
	}
	d, err := s.start(ctx, map[string]string{admin: rand.Text(), ana: rand.Text(), bob: rand.Text()})
	if err != nil {
		return nil, errors.Join(err, open.end())
	}
	d.open = open
	return d, nil
}

// start starts one, with these keys if there are any, and waits until it listens.
func (s *session) start(ctx context.Context, keys map[string]string) (_ *daemon, err error) {
	d := &daemon{keys: keys}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.end())
		}
	}()
	if d.dir, d.lock, err = jail.ScratchDir(os.TempDir()); err != nil {
		return nil, err
	}
	d.cmd = exec.Command(s.Daemon, "serve") //nolint:noctx // ended by end, in order
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	mode := "strict"
	if len(s.Without) > 0 {
		mode = "degraded"
	}
	d.cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "SANDBOX_BASE_DIR=" + filepath.Join(d.dir, "data"), "SANDBOX_WORKER_PATH=" + s.Attacker,
		"CARREL_LISTEN=127.0.0.1:0", "CARREL_LOG_LEVEL=error", "SANDBOX_ISOLATION=" + mode, "SANDBOX_AGENT=shell",
		// Uids that no daemon has by default: there may be one on this machine.
		"SANDBOX_UID_RANGE=" + throwAwayUIDs, "SANDBOX_MAX_WORKERS=4",
	}
	if keys != nil {
		path := filepath.Join(d.dir, "keys")
		if err := os.WriteFile(path, keyFile(keys), 0o600); err != nil {
			return nil, err
		}
		d.cmd.Env = append(d.cmd.Env, "CARREL_API_KEYS_FILE="+path)
	}
	out, err := d.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	log := &tail{}
	d.cmd.Stderr = log
	if err := d.startOnThread(); err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = d.cmd.Process.Kill() })
	defer stop()
	lines := bufio.NewScanner(out)
	for d.url == "" && lines.Scan() {
		if m := announced.FindStringSubmatch(lines.Text()); m != nil {
			d.url = m[1]
		}
	}
	if d.url == "" {
		return nil, fmt.Errorf("%s serve did not start: %s", s.Daemon, log)
	}
	d.client, err = client.New(d.url, client.Options{Key: client.Key(keys[admin])})
	return d, err
}

// keyFile is CARREL_API_KEYS_FILE: a line a key.
func keyFile(keys map[string]string) []byte {
	var b strings.Builder
	for name, key := range keys {
		sum := sha256.Sum256([]byte(key))
		role, user := "user", ":"+name
		if name == admin {
			role, user = "admin", ""
		}
		fmt.Fprintf(&b, "%s:%s:%s%s\n", name, role, hex.EncodeToString(sum[:]), user)
	}
	return []byte(b.String())
}

// startOnThread starts the program from a thread that lives until end: the kernel kills
// it when the thread that started it ends, not when the process does (Pdeathsig).
func (d *daemon) startOnThread() error {
	d.over = make(chan struct{})
	started := make(chan error, 1)
	go func() { // ended by end
		runtime.LockOSThread()
		started <- d.cmd.Start()
		<-d.over
	}()
	return <-started
}

// throwAwayUIDs is a range below the default one, SANDBOX_UID_RANGE.
const throwAwayUIDs = "198000:1000"

// tail is the last of what a daemon wrote to its log.
type tail struct {
	mu   sync.Mutex
	text []byte
}

const tailBytes = 4 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.text = append(t.text, p...)
	t.text = t.text[max(0, len(t.text)-tailBytes):]
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.text))
}

// end ends it, in haste: it takes its cgroups away, and every process of its sandboxes
// dies with it.
func (d *daemon) end() error {
	if d.open != nil {
		defer func() { _ = d.open.end() }() // it leaves what the other leaves
	}
	if d.client != nil {
		d.client.Close()
	}
	if d.cmd != nil && d.cmd.Process != nil {
		d.hurry()
	}
	if d.over != nil {
		close(d.over)
	}
	if d.dir == "" {
		return nil
	}
	return errors.Join(os.RemoveAll(d.dir), d.lock.Close())
}

// hurry asks it to end, and again, since the second time tells it not to wait for what
// goes on; and kills it when that does not help.
func (d *daemon) hurry() {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = d.cmd.Wait() // it may have been killed
	}()
	for deadline := time.Now().Add(patience); ; {
		ask := syscall.SIGTERM
		if time.Now().After(deadline) {
			ask = syscall.SIGKILL
		}
		_ = d.cmd.Process.Signal(ask)
		select {
		case <-ended:
			return
		case <-time.After(pollTime):
		}
	}
}

// run works on one message and gives the run when it has ended.
func (d *daemon) run(ctx context.Context, user string, trick attack.Trick, about string) (protocol.Run, error) {
	run, err := d.begin(ctx, user, trick, about)
	if err != nil {
		return run, err
	}
	return d.ended(ctx, run.RunID)
}

func (d *daemon) begin(ctx context.Context, user string, trick attack.Trick, about string) (protocol.Run, error) {
	return d.client.Execute(ctx, protocol.ExecuteRequest{
		UserID: user, Message: attack.Hostile + string(trick) + " " + about, Config: protocol.RunConfig{TimeoutSeconds: runSeconds},
	}, client.ExecuteOptions{})
}

// runSeconds is what each run gets; one that is longer has not been ended.
const runSeconds = 3

// ended follows a run to its last event.
func (d *daemon) ended(ctx context.Context, id string) (protocol.Run, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for ev, err := range d.client.Events(ctx, id, 0) {
		if err != nil {
			return protocol.Run{}, err
		}
		// The host's own RUN_ERROR may quote what it refused.
		if ev.Type != protocol.EventRunError && strings.Contains(string(ev.Type)+string(ev.Data), "forged") {
			return protocol.Run{}, errForged
		}
	}
	return d.client.Run(ctx, id)
}

// errForged tells that a reader was shown what a trick made up.
var errForged = errors.New("a reader was shown the forged event")

// residentBytes is what the daemon's memory comes to (proc_pid_statm(5)).
func (d *daemon) residentBytes() (int64, error) {
	content, err := os.ReadFile("/proc/" + strconv.Itoa(d.cmd.Process.Pid) + "/statm")
	if err != nil {
		return 0, err
	}
	var size, resident int64
	if _, err := fmt.Sscan(string(content), &size, &resident); err != nil {
		return 0, err
	}
	return resident * int64(os.Getpagesize()), nil
}
