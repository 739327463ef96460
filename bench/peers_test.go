package bench

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// pool is a home-made pool of testdata, a process that measures itself.
type pool struct {
	t      *testing.T
	cmd    *exec.Cmd
	in     io.WriteCloser
	answer *bufio.Scanner
}

// newPool starts one; nil if there is no interpreter for it.
func newPool(t *testing.T, r *Results, interpreter, program string) *pool {
	t.Helper()
	path, err := exec.LookPath(interpreter)
	if err != nil {
		r.LeftOut = append(r.LeftOut, fmt.Sprintf("%s: %s is not installed", program, interpreter))
		return nil
	}
	p := &pool{t: t, cmd: exec.CommandContext(t.Context(), path, filepath.Join("testdata", program))}
	p.cmd.Stderr = os.Stderr
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.answer = bufio.NewScanner(out)
	t.Cleanup(func() { _, _ = p.in.Close(), p.cmd.Wait() })
	return p
}

// ask gives the seconds that a command took.
func (p *pool) ask(command string) float64 {
	p.t.Helper()
	if _, err := fmt.Fprintln(p.in, command); err != nil {
		p.t.Fatal(err)
	}
	if !p.answer.Scan() {
		p.t.Fatalf("%s: %s: no answer: %v", p.cmd.Path, command, p.answer.Err())
	}
	seconds, err := strconv.ParseFloat(p.answer.Text(), 64)
	if err != nil {
		p.t.Fatal(err)
	}
	return seconds
}

// seconds is ask as a subject's turn, n times.
func (p *pool) milliseconds(command string, n int) func() []float64 {
	return func() []float64 {
		var all []float64
		for range n {
			all = append(all, p.ask(command)*1000)
		}
		return all
	}
}

// newWebPool starts the home-made pool that speaks HTTP, and gives its address; none, if
// its libraries are not here. They are Debian's, so the interpreter is as well.
func newWebPool(t *testing.T, r *Results) (url string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/usr/bin/python3", "testdata/pool_http.py")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var words strings.Builder
	cmd.Stderr = &words
	port := ""
	if err = cmd.Start(); err == nil {
		port, err = bufio.NewReader(out).ReadString('\n')
	}
	if err != nil {
		_, _ = in.Close(), cmd.Wait()
		lines := strings.Split(strings.TrimSpace(words.String()), "\n")
		r.LeftOut = append(r.LeftOut, fmt.Sprintf("pool_http.py: %v: %s", err, lines[len(lines)-1]))
		return ""
	}
	t.Cleanup(func() {
		if _, err := in.Close(), cmd.Wait(); err != nil {
			t.Logf("pool_http.py: %v: %s", err, words.String())
		}
	})
	return "http://127.0.0.1:" + strings.TrimSpace(port)
}

// command is how another program runs something; nil if it is not here, or does not
// work here, which is then said.
type command []string

// starters are what starts /bin/true in some kind of sandbox, by its name, and floors.
func starters(t *testing.T, r *Results, dir string) map[string]command {
	t.Helper()
	all := map[string]command{"bare: /bin/true": {"/bin/true"}}
	if static := filepath.Join(dir, "true"); build(t, "gcc", "-O2", "-static", "-o", static, "testdata/true.c") {
		all["bare: static C"] = command{static}
	}
	for name, c := range map[string]command{
		"bubblewrap":      {"bwrap", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "--unshare-all", "--die-with-parent", "/bin/true"},
		"crun":            {"crun", "--root", filepath.Join(dir, "crun"), "run", "--bundle", bundle(t, dir, "crun"), "carrel-bench-crun"},
		"runc":            {"runc", "--root", filepath.Join(dir, "runc"), "run", "--bundle", bundle(t, dir, "runc"), "carrel-bench-runc"},
		"sandbox-runtime": {filepath.Join(peersDir(), "node_modules/.bin/srt"), "/bin/true"},
	} {
		if err := c.try(t); err != nil {
			r.LeftOut = append(r.LeftOut, fmt.Sprintf("%s: %v", name, err))
			continue
		}
		all[name] = c
	}
	return all
}

// peersDir is where scripts/bench-peers.sh has put what npm has.
func peersDir() string {
	dir, err := filepath.Abs("../bin/peers")
	if err != nil {
		return "../bin/peers"
	}
	return dir
}

func build(t *testing.T, name string, args ...string) bool {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput(); err != nil {
		t.Logf("%s: %v\n%s", name, err, out)
		return false
	}
	return true
}

// bundle is what an OCI runtime runs: the static program alone.
func bundle(t *testing.T, dir, runtime string) string {
	t.Helper()
	at := filepath.Join(dir, "bundle-"+runtime)
	root := filepath.Join(at, "rootfs")
	if err := os.MkdirAll(root, 0o755); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(filepath.Join(dir, "true"))
	if err != nil {
		return at // no compiler: it will not run, and say so
	}
	spec := exec.CommandContext(t.Context(), runtime, "spec")
	spec.Dir = at
	if err := spec.Run(); err != nil {
		return at // as above
	}
	config, err := os.ReadFile(filepath.Join(at, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(strings.Replace(string(config), `"terminal": true`, `"terminal": false`, 1), `"sh"`, `"/true"`, 1)
	err = errors.Join(os.WriteFile(filepath.Join(at, "config.json"), []byte(text), 0o600),
		os.WriteFile(filepath.Join(root, "true"), content, 0o755))
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// try runs it once.
func (c command) try(t *testing.T) error {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), c[0], c[1:]...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %.200s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// time runs it n times, to its end, and gives the milliseconds of each.
func (c command) time(t *testing.T, n int, attr *syscall.SysProcAttr) func() []float64 {
	t.Helper()
	return func() []float64 {
		var all []float64
		for range n {
			cmd := exec.CommandContext(t.Context(), c[0], c[1:]...)
			cmd.SysProcAttr = attr
			began := time.Now()
			if err := cmd.Run(); err != nil {
				t.Fatalf("%s: %v", c[0], err)
			}
			all = append(all, milliseconds(time.Since(began)))
		}
		return all
	}
}

// namespaces are those that a sandbox has, for the floor of a start in them.
func namespaces() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET |
			syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS | syscall.CLONE_NEWCGROUP,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
