package selftest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

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
}

// newSandbox starts one with program in carrel-worker's place and everything planted
// that rows look for.
func (s *session) newSandbox(ctx context.Context, program string, way Way, env []string) (_ *sandbox, err error) {
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
		Warm: way == Warm, Stdio: [3]*os.File{stdin, stdout, os.Stderr}, Broker: theirs,
	})
	if err != nil {
		return nil, err
	}
	workspace, home := b.trial.Dirs()
	return b, errors.Join(attack.PlantHome(home), install(s.Attacker, filepath.Join(workspace, "attacker"), 0o755), plantByRoot(workspace, s.Attacker))
}

// userID is whose sandbox it is.
const userID = "attacked"

func (b *sandbox) Read(p []byte) (int, error)  { return b.out.Read(p) }
func (b *sandbox) Write(p []byte) (int, error) { return b.in.Write(p) }
func (b *sandbox) Close() error                { return errors.Join(b.in.Close(), b.out.Close()) }

func (b *sandbox) close() error {
	for _, f := range []*os.File{b.in, b.out, b.line} {
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

func (s *session) converse(ctx context.Context, way Way) (*conversation, error) {
	b, err := s.newSandbox(ctx, s.Worker, way, nil)
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
func (c *conversation) exec(ctx context.Context, env map[string]string, argv ...string) (protocol.ExecResult, error) {
	var r protocol.ExecResult
	err := c.conn.Call(ctx, protocol.MethodExec, protocol.ExecParams{
		ExecRequest: protocol.ExecRequest{Command: protocol.Command{Args: argv}, Env: env},
	}, &r)
	return r, err
}

type deaf struct{}

func (deaf) Notify(context.Context, string, json.RawMessage) error { return nil }
func (deaf) Request(context.Context, string, json.RawMessage) (any, error) {
	return nil, jsonrpc.ErrMethodNotFound
}

func install(from, to string, mode os.FileMode) error {
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.WriteFile(to, content, 0o755); err != nil { //nolint:gosec // a program
		return err
	}
	return os.Chmod(to, mode)
}

// plantByRoot plants what only root can: a device node and a set-uid program.
func plantByRoot(dir, attacker string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	device := filepath.Join(dir, "device")
	if err := unix.Mknod(device, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))); err != nil {
		return fmt.Errorf("plant a device: %w", err)
	}
	return errors.Join(os.Chmod(device, 0o666), install(attacker, filepath.Join(dir, "setuid"), os.ModeSetuid|0o755)) //nolint:gosec // what a row is about
}
