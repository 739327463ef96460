package selftest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"carrel/internal/jail"
	"carrel/internal/jail/attack"
	"carrel/internal/jsonrpc"
	"carrel/protocol"
)

// sandbox is a trial whose stdin and stdout are here.
type sandbox struct {
	trial *jail.Trial
	in    *os.File
	out   *os.File
	line  *os.File // the host's end of the line to the broker
	sock  *os.File // what listens in the worker's home
}

// newSandbox starts one with program in carrel-worker's place and everything planted
// that rows look for.
func (s *session) newSandbox(ctx context.Context, program string, way Way, neighbour string, env []string) (_ *sandbox, err error) {
	b := &sandbox{}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.close())
		}
	}()
	stdin, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer func() { _ = stdin.Close() }()
	b.in = in
	out, stdout, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer func() { _ = stdout.Close() }()
	b.out = out
	stderr := s.Log
	if stderr == nil {
		if stderr, err = os.OpenFile(os.DevNull, os.O_WRONLY, 0); err != nil {
			return nil, err
		}
		defer func() { _ = stderr.Close() }()
	}
	// A line to the broker, as every worker has one: the row about inherited
	// descriptors must not find it in the tool tier.
	line, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	b.line = os.NewFile(uintptr(line[0]), "broker")
	theirs := os.NewFile(uintptr(line[1]), "line")
	defer func() { _ = theirs.Close() }()
	b.trial, err = jail.NewTrial(ctx, jail.TrialOptions{
		Worker: program, UserID: userID, Env: append(jail.BaseEnv(userID, nil), env...), Without: s.Without,
		Limits: attack.Limits(), Warm: way == Warm, Stdio: [3]*os.File{stdin, stdout, stderr}, Broker: theirs,
	})
	if err != nil {
		return nil, err
	}
	workspace, home := b.trial.Dirs()
	if b.sock, err = attack.PlantHome(home, s.secret); err != nil {
		return nil, err
	}
	return b, errors.Join(install(s.Attacker, filepath.Join(workspace, "attacker"), 0o755),
		os.Symlink(neighbour, filepath.Join(workspace, "neighbour")), s.plantByRoot(workspace))
}

// userID is whose sandbox it is.
const userID = "attacked"

func (b *sandbox) Read(p []byte) (int, error)  { return b.out.Read(p) }
func (b *sandbox) Write(p []byte) (int, error) { return b.in.Write(p) }
func (b *sandbox) Close() error                { return errors.Join(b.in.Close(), b.out.Close()) }

func (b *sandbox) close() error {
	for _, f := range []*os.File{b.in, b.out, b.line, b.sock} {
		if f != nil {
			_ = f.Close() // of pipes: nothing is lost
		}
	}
	if b.trial == nil {
		return nil
	}
	return b.trial.Close()
}

// conversation is JSON-RPC with the worker in a sandbox.
type conversation struct {
	*sandbox
	conn   *jsonrpc.Conn
	cancel context.CancelFunc
	ended  sync.WaitGroup
}

func (s *session) converse(ctx context.Context, way Way, target attack.Target) (*conversation, error) {
	b, err := s.newSandbox(ctx, s.Worker, way, target.Neighbour, nil)
	if err != nil {
		return nil, err
	}
	c := &conversation{sandbox: b, conn: jsonrpc.NewConn(b, deaf{}, jsonrpc.Options{})}
	ctx, c.cancel = context.WithCancel(ctx)
	c.ended.Go(func() { _ = c.conn.Run(ctx) })
	return c, nil
}

func (c *conversation) end() error {
	c.cancel()
	c.ended.Wait()
	return c.close()
}

// exec runs one command in the tool tier.
func (c *conversation) exec(ctx context.Context, target attack.Target, argv ...string) (protocol.ExecResult, error) {
	encoded, err := json.Marshal(target)
	if err != nil {
		return protocol.ExecResult{}, err
	}
	return c.command(ctx, protocol.Command{Args: argv}, map[string]string{attack.TargetEnv: string(encoded)})
}

func (c *conversation) command(ctx context.Context, what protocol.Command, env map[string]string) (protocol.ExecResult, error) {
	var r protocol.ExecResult
	err := c.conn.Call(ctx, protocol.MethodExec, protocol.ExecParams{ExecRequest: protocol.ExecRequest{Command: what, Env: env}}, &r)
	return r, err
}

// keepSibling starts a command of another run, unless one is alive: it has the secret
// in its arguments and its environment. The target is completed. It lives as long as
// the sandbox, but without Landlock, where it is killed with the next one that ends.
func (c *conversation) keepSibling(ctx context.Context, secret string, target *attack.Target) error {
	workspace, _ := c.trial.Dirs()
	if attack.Answers(workspace) {
		return nil
	}
	for _, name := range []string{attack.Ping, attack.Pong} {
		path := filepath.Join(workspace, name)
		if err := unix.Mkfifo(path, 0o600); errors.Is(err, unix.EEXIST) {
			continue
		} else if err := errors.Join(err, c.trial.Own(path)); err != nil {
			return err
		}
	}
	// Both ends are held by that command itself: no opening of one waits.
	shell := "exec ./attacker " + attack.ModeVictim + " " + secret + " 0<>" + attack.Ping + " 1<>" + attack.Pong
	pong, err := os.OpenFile(filepath.Join(workspace, attack.Pong), os.O_RDWR|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer func() { _ = pong.Close() }()
	c.ended.Go(func() {
		_, _ = c.command(ctx, protocol.Command{Shell: shell}, map[string]string{"CANARY": secret})
		_ = pong.SetReadDeadline(time.Unix(1, 0)) // if it ended before it said so
	})
	line, err := bufio.NewReader(pong).ReadString('\n')
	if err != nil {
		return fmt.Errorf("start another run's command: %w", err)
	}
	if _, err := fmt.Sscan(line, &target.Sibling, &target.SiblingHost); err != nil {
		return fmt.Errorf("start another run's command: %w", err)
	}
	return nil
}

type deaf struct{}

func (deaf) Notify(context.Context, string, json.RawMessage) error { return nil }
func (deaf) Request(context.Context, string, json.RawMessage) (any, error) {
	return nil, jsonrpc.ErrMethodNotFound
}

// install copies a program. No process is forked meanwhile: one that held it open for
// writing, until its own exec, would make it busy (golang/go#22315).
func install(from, to string, mode os.FileMode) (err error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = source.Close() }()
	program, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(program, source) // by copy_file_range: it is megabytes, and a daemon may wait
	if err := errors.Join(err, program.Close()); err != nil {
		return err
	}
	return os.Chmod(to, mode)
}

// plantByRoot plants what only root can: a device node, a set-uid program, and a file
// that nobody else may read. The rows that are about them need root for their control.
func (s *session) plantByRoot(dir string) error {
	if os.Geteuid() != 0 || !slices.ContainsFunc(s.Rows, func(r attack.Row) bool { return r.Control == attack.Root }) {
		return nil
	}
	device := filepath.Join(dir, "device")
	if err := unix.Mknod(device, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))); err != nil {
		return fmt.Errorf("plant a device: %w", err)
	}
	return errors.Join(os.Chmod(device, 0o666), install(s.Attacker, filepath.Join(dir, "setuid"), os.ModeSetuid|0o755), //nolint:gosec // what a row is about
		os.WriteFile(filepath.Join(dir, "foreign"), []byte(s.secret), 0o600))
}
