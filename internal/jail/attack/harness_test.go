package attack_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"carrel/internal/jail"
	"carrel/internal/jail/attack"
	"carrel/internal/jsonrpc"
	"carrel/protocol"
)

func TestMain(m *testing.M) {
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			_, _ = os.Stderr.WriteString(err.Error() + "\n")
			code = 1
		}
	}
	if dir, err := built(); err == nil && dir.made != "" {
		_ = os.RemoveAll(dir.made)
	}
	os.Exit(code)
}

// cannot ends a test that this machine cannot run.
func cannot(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("REQUIRE_KERNEL") == "1" {
		t.Fatal(why)
	}
	t.Skip(why)
}

type programs struct{ worker, attacker, made string }

// built are the two programs, which are never this one: it may have cgo. They
// come from SANDBOX_WORKER_PATH and CARREL_TEST_ATTACKER, else from the go
// command, into a directory that every uid can walk to.
var built = sync.OnceValues(func() (programs, error) { //nolint:gochecknoglobals // built once a test binary
	p := programs{worker: os.Getenv("SANDBOX_WORKER_PATH"), attacker: os.Getenv("CARREL_TEST_ATTACKER")}
	if p.worker != "" && p.attacker != "" {
		return p, nil
	}
	dir, err := os.MkdirTemp("", "carrel-attack-")
	if err != nil {
		return p, err
	}
	p.made = dir
	for _, b := range []struct {
		path *string
		pkg  string
	}{{&p.worker, "carrel/cmd/carrel-worker"}, {&p.attacker, "carrel/internal/jail/attack/attacker"}} {
		if *b.path != "" {
			continue
		}
		*b.path = filepath.Join(dir, filepath.Base(b.pkg))
		cmd := exec.Command("go", "build", "-buildvcs=false", "-ldflags=-s -w", "-o", *b.path, b.pkg) //nolint:noctx // once, for all tests
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return p, errors.New("build " + b.pkg + ": " + string(out) + err.Error())
		}
	}
	return p, os.Chmod(dir, 0o755)
})

func build(t *testing.T) programs {
	t.Helper()
	p, err := built()
	if err != nil {
		cannot(t, err.Error())
	}
	return p
}

// sandbox is a trial whose stdin and stdout are here.
type sandbox struct {
	trial *jail.Trial
	in    *os.File
	out   *os.File
}

// ways are how a sandbox comes to be: for a user from the first, or warm, which
// only under root makes a difference (jail.IDMap).
func ways() []string {
	if os.Geteuid() != 0 {
		return []string{"cold"}
	}
	return []string{"cold", "warm"}
}

func start(t *testing.T, program, way string, env []string) *sandbox {
	t.Helper()
	stdin, in := pipe(t)
	out, stdout := pipe(t)
	// A line to the broker, as every worker has one: the row about inherited
	// descriptors must not find it in the tool tier.
	line, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(line[0]), "broker"), os.NewFile(uintptr(line[1]), "line")
	t.Cleanup(func() { _ = ours.Close() })
	trial, err := jail.NewTrial(t.Context(), jail.TrialOptions{
		Worker: program, UserID: "attacked", Env: env, Warm: way == "warm", Stdio: [3]*os.File{stdin, stdout, os.Stderr}, Broker: theirs,
	})
	_, _, _ = stdin.Close(), stdout.Close(), theirs.Close()
	if err != nil {
		_, _ = in.Close(), out.Close()
		cannot(t, err.Error())
	}
	t.Cleanup(func() {
		_, _ = in.Close(), out.Close()
		if err := trial.Close(); err != nil {
			t.Error(err)
		}
	})
	return &sandbox{trial: trial, in: in, out: out}
}

func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	return r, w
}

func (s *sandbox) Read(p []byte) (int, error)  { return s.out.Read(p) }
func (s *sandbox) Write(p []byte) (int, error) { return s.in.Write(p) }
func (s *sandbox) Close() error                { return errors.Join(s.in.Close(), s.out.Close()) }

// connect speaks JSON-RPC with the worker in a sandbox. Its Run ends with the test.
func connect(t *testing.T, s *sandbox) *jsonrpc.Conn {
	t.Helper()
	c := jsonrpc.NewConn(s, deaf{}, jsonrpc.Options{})
	ctx, cancel := context.WithCancel(context.Background()) //nolint:usetesting // ended by hand, to be waited for
	var wg sync.WaitGroup
	wg.Go(func() { _ = c.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	return c
}

type deaf struct{}

func (deaf) Notify(context.Context, string, json.RawMessage) error { return nil }
func (deaf) Request(context.Context, string, json.RawMessage) (any, error) {
	return nil, jsonrpc.ErrMethodNotFound
}

// plant puts what the rows look for into a sandbox's directories, from outside,
// and the attacker's program with it.
func plant(t *testing.T, s *sandbox, p programs) {
	t.Helper()
	workspace, home := s.trial.Dirs()
	if err := attack.PlantHome(home); err != nil {
		t.Fatal(err)
	}
	install(t, p.attacker, filepath.Join(workspace, "attacker"))
	plantByRoot(t, workspace, p)
}

func install(t *testing.T, from, to string) {
	t.Helper()
	content, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, content, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// plantByRoot plants what only root can: a device node and a set-uid program.
func plantByRoot(t *testing.T, dir string, p programs) {
	t.Helper()
	if os.Geteuid() != 0 {
		return
	}
	device := filepath.Join(dir, "device")
	if err := unix.Mknod(device, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(device, 0o666); err != nil {
		t.Fatal(err)
	}
	install(t, p.attacker, filepath.Join(dir, "setuid"))
	if err := os.Chmod(filepath.Join(dir, "setuid"), os.ModeSetuid|0o755); err != nil {
		t.Fatal(err)
	}
}

// listen opens what the network rows go for on the host, and completes the target.
func listen(t *testing.T, target *attack.Target) {
	t.Helper()
	var config net.ListenConfig
	config.SetMultipathTCP(false)
	tcp, err := config.Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	udp, err := config.ListenPacket(t.Context(), "udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	target.Socket = "carrel-attack-" + filepath.Base(t.TempDir()) + filepath.Base(filepath.Dir(t.TempDir()))
	abstract, err := config.Listen(t.Context(), "unix", "@"+target.Socket)
	if err != nil {
		t.Fatal(err)
	}
	target.TCP, target.UDP = tcp.Addr().(*net.TCPAddr).Port, udp.LocalAddr().(*net.UDPAddr).Port
	var wg sync.WaitGroup
	wg.Go(func() {
		b := make([]byte, 16)
		for {
			n, from, err := udp.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = udp.WriteTo(b[:n], from)
		}
	})
	t.Cleanup(func() {
		_, _, _ = tcp.Close(), udp.Close(), abstract.Close()
		wg.Wait()
	})
}

// controls runs the controls of rows and gives their results by id.
func controls(t *testing.T, p programs, rows []attack.Row) map[string]attack.Result {
	t.Helper()
	dir, err := os.MkdirTemp("", "carrel-control-") //nolint:usetesting // a set-uid program must be reachable for nobody, and t.TempDir is not
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	home := filepath.Join(dir, "a", "home")
	if err := errors.Join(os.Chmod(dir, 0o755), os.MkdirAll(home, 0o755), attack.PlantHome(home)); err != nil {
		t.Fatal(err)
	}
	plantByRoot(t, dir, p)
	program := filepath.Join(dir, "program")
	install(t, p.attacker, program)
	target := attack.Target{Home: home, Planted: dir, Program: program}
	listen(t, &target)
	ids := []string{"control"}
	for _, r := range rows {
		if r.Control != attack.Root || os.Geteuid() == 0 {
			ids = append(ids, r.ID)
		}
	}
	cmd := exec.CommandContext(t.Context(), p.attacker, ids...)
	cmd.Env = []string{attack.TargetEnv + "=" + encode(t, target)}
	cmd.Stderr = os.Stderr
	// The row about inherited descriptors needs one to find; it passes through
	// the attacker only by being no close-on-exec one there as well.
	spare, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = spare.Close() }()
	cmd.ExtraFiles = []*os.File{spare}
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("controls: %v\n%s", err, out)
	}
	return results(t, strings.NewReader(string(out)))
}

func encode(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func results(t *testing.T, from io.Reader) map[string]attack.Result {
	t.Helper()
	all := make(map[string]attack.Result)
	for d := json.NewDecoder(from); ; {
		var r attack.Result
		err := d.Decode(&r)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all[r.ID] = r
	}
}

func exec1(t *testing.T, c *jsonrpc.Conn, env map[string]string, argv ...string) protocol.ExecResult {
	t.Helper()
	var r protocol.ExecResult
	err := c.Call(t.Context(), protocol.MethodExec, protocol.ExecParams{
		ExecRequest: protocol.ExecRequest{Command: protocol.Command{Args: argv}, Env: env},
	}, &r)
	if err != nil {
		t.Fatal(err)
	}
	return r
}
