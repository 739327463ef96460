package selftest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"carrel/internal/jail"
	"carrel/internal/jail/attack"
)

// outside is what the rows go for on the host.
type outside struct {
	tcp, tcp6, abstract net.Listener
	udp                 net.PacketConn
	echo                sync.WaitGroup
	dir                 string // another user's
	lock                *os.File
	shared              string // name of a file in /dev/shm and of a message queue
	queue               *os.File
	memory              []byte // of System V
}

// listen opens it and completes the target.
func (s *session) listen(ctx context.Context, target *attack.Target) (_ *outside, err error) {
	o := &outside{}
	defer func() {
		if err != nil {
			o.close()
		}
	}()
	var config net.ListenConfig
	config.SetMultipathTCP(false)
	if o.tcp, err = config.Listen(ctx, "tcp4", "127.0.0.1:0"); err != nil {
		return nil, err
	}
	if o.tcp6, err = config.Listen(ctx, "tcp6", "[::1]:0"); err == nil {
		target.TCP6 = o.tcp6.Addr().(*net.TCPAddr).Port
	} else {
		o.tcp6 = nil // a host without IPv6: its row is not applicable
	}
	if o.udp, err = config.ListenPacket(ctx, "udp4", "127.0.0.1:0"); err != nil {
		return nil, err
	}
	target.TCP, target.UDP = o.tcp.Addr().(*net.TCPAddr).Port, o.udp.LocalAddr().(*net.UDPAddr).Port
	target.Socket = "carrel-attack-" + strconv.Itoa(os.Getpid()) + "-" + strconv.Itoa(target.TCP)
	if o.abstract, err = config.Listen(ctx, "unix", "@"+target.Socket); err != nil {
		return nil, err
	}
	target.Daemon, target.Sought = os.Getpid(), attack.Backwards(s.secret)
	if target.DaemonSID, err = unix.Getsid(0); err != nil {
		return nil, err
	}
	if err := o.plant(s.secret, target); err != nil {
		return nil, fmt.Errorf("plant on the host: %w", err)
	}
	o.echo.Go(func() {
		b := make([]byte, 16)
		for {
			n, from, err := o.udp.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = o.udp.WriteTo(b[:n], from)
		}
	})
	return o, nil
}

// plant puts the secret where only the host's users may find it. That a kernel or a
// host lacks one of these places makes its row not applicable.
func (o *outside) plant(secret string, target *attack.Target) (err error) {
	if o.dir, o.lock, err = jail.ScratchDir(os.TempDir()); err != nil {
		return err
	}
	file := filepath.Join(o.dir, "secret")
	if err := errors.Join(os.Chmod(o.dir, 0o755), os.WriteFile(file, []byte(secret), 0o644)); err != nil { //nolint:gosec // only its place protects it
		return err
	}
	target.Neighbour = o.dir
	if handle, _, err := unix.NameToHandleAt(unix.AT_FDCWD, file, 0); err == nil {
		target.Handle, target.HandleType = handle.Bytes(), handle.Type()
	}
	o.shared = target.Socket
	if err := os.WriteFile(filepath.Join("/dev/shm", o.shared), []byte(secret), 0o644); err == nil {
		target.Shared = o.shared
	}
	name, err := unix.BytePtrFromString(o.shared)
	if err != nil {
		return err
	}
	if fd, _, errno := unix.Syscall6(unix.SYS_MQ_OPEN, uintptr(unsafe.Pointer(name)), unix.O_CREAT|unix.O_RDWR|unix.O_CLOEXEC, 0o600, 0, 0, 0); errno == 0 {
		o.queue = os.NewFile(fd, "queue")
		if err := o.queue.Chmod(0o644); err != nil {
			return err
		}
	}
	const private = 0 // IPC_PRIVATE
	id, err := unix.SysvShmGet(private, os.Getpagesize(), unix.IPC_CREAT|0o644)
	if err != nil {
		return nil //nolint:nilerr // as said
	}
	// Marked as removed at once, it lives as long as it is attached.
	o.memory, err = unix.SysvShmAttach(id, 0, 0)
	if _, removing := unix.SysvShmCtl(id, unix.IPC_RMID, nil); removing != nil || err != nil {
		return errors.Join(err, removing)
	}
	copy(o.memory, secret)
	return nil
}

func (o *outside) close() {
	for _, c := range []io.Closer{o.tcp, o.tcp6, o.udp, o.abstract} {
		if c != nil {
			_ = c.Close()
		}
	}
	o.echo.Wait()
	if o.memory != nil {
		_ = unix.SysvShmDetach(o.memory)
	}
	if o.queue != nil {
		_ = o.queue.Close()
		if name, err := unix.BytePtrFromString(o.shared); err == nil {
			_, _, _ = unix.Syscall(unix.SYS_MQ_UNLINK, uintptr(unsafe.Pointer(name)), 0, 0)
		}
	}
	if o.shared != "" {
		_ = os.Remove(filepath.Join("/dev/shm", o.shared))
	}
	if o.dir != "" {
		_, _ = os.RemoveAll(o.dir), o.lock.Close()
	}
}

// controls runs the controls of the rows, each in a process of its own or, by
// [attack.ModeRow], all in one, and gives their results by id. A row whose control
// needs root has none where this process is not root.
func (s *session) controls(ctx context.Context, mode string) (_ map[string]*attack.Result, err error) {
	dir, lock, err := jail.ScratchDir(os.TempDir())
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir), lock.Close()) }()
	home, program := filepath.Join(dir, "a", "home"), filepath.Join(dir, "program")
	// Everybody may walk to the set-uid program: a row runs it as nobody.
	err = errors.Join(os.Chmod(dir, 0o755), os.MkdirAll(home, 0o755), //nolint:gosec // as said
		install(s.Attacker, program, 0o755), s.plantByRoot(dir))
	if err != nil {
		return nil, err
	}
	sock, err := attack.PlantHome(home, s.secret)
	if err != nil {
		return nil, err
	}
	defer func() { _ = sock.Close() }()
	target := attack.Target{Home: home, Planted: dir, Program: program}
	host, err := s.listen(ctx, &target)
	if err != nil {
		return nil, err
	}
	defer host.close()
	if err := os.Symlink(target.Neighbour, filepath.Join(dir, "neighbour")); err != nil {
		return nil, err
	}
	args := []string{mode}
	for _, r := range s.Rows {
		if id := r.Outside(); !slices.Contains(args, id) && (r.Control != attack.Root || os.Geteuid() == 0) {
			args = append(args, id)
		}
	}
	out, err := s.attackOutside(ctx, target, args)
	if err != nil {
		return nil, err
	}
	results, err := decodeAll(bytes.NewReader(out))
	if err != nil {
		return nil, err
	}
	for _, r := range s.Rows {
		if got := results[r.Outside()]; got != nil {
			results[r.ID] = got
		}
	}
	return results, nil
}

func (s *session) attackOutside(ctx context.Context, target attack.Target, args []string) ([]byte, error) {
	encoded, err := json.Marshal(target)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, s.Attacker, args...)
	cmd.Env = []string{attack.TargetEnv + "=" + string(encoded), "CARREL_ATTACK_SECRET=" + s.secret}
	cmd.Stderr = os.Stderr
	// The row about inherited descriptors needs one to find; it passes through
	// the attacker only by being no close-on-exec one there as well.
	spare, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	defer func() { _ = spare.Close() }()
	cmd.ExtraFiles = []*os.File{spare}
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	return out, nil
}

func decodeAll(from io.Reader) (map[string]*attack.Result, error) {
	all := make(map[string]*attack.Result)
	for d := json.NewDecoder(from); ; {
		var r attack.Result
		err := d.Decode(&r)
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		all[r.ID] = &r
	}
}
