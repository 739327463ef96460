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
	"strconv"
	"sync"

	"carrel/internal/jail/attack"
)

// outside is what the rows go for on the host.
type outside struct {
	tcp, abstract net.Listener
	udp           net.PacketConn
	echo          sync.WaitGroup
}

// listen opens it and completes the target.
func listen(ctx context.Context, target *attack.Target) (_ *outside, err error) {
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
	if o.udp, err = config.ListenPacket(ctx, "udp4", "127.0.0.1:0"); err != nil {
		return nil, err
	}
	target.TCP, target.UDP = o.tcp.Addr().(*net.TCPAddr).Port, o.udp.LocalAddr().(*net.UDPAddr).Port
	target.Socket = "carrel-attack-" + strconv.Itoa(os.Getpid()) + "-" + strconv.Itoa(target.TCP)
	if o.abstract, err = config.Listen(ctx, "unix", "@"+target.Socket); err != nil {
		return nil, err
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

func (o *outside) close() {
	for _, c := range []io.Closer{o.tcp, o.udp, o.abstract} {
		if c != nil {
			_ = c.Close()
		}
	}
	o.echo.Wait()
}

// controls runs the controls of the rows, each in a process of its own or, by
// [attack.ModeRow], all in one, and gives their results by id. A row whose control
// needs root has none where this process is not root.
func (s *session) controls(ctx context.Context, mode string) (_ map[string]*attack.Result, err error) {
	dir, err := os.MkdirTemp("", "carrel-control-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	home, program := filepath.Join(dir, "a", "home"), filepath.Join(dir, "program")
	// Everybody may walk to the set-uid program: a row runs it as nobody.
	err = errors.Join(os.Chmod(dir, 0o755), os.MkdirAll(home, 0o755), attack.PlantHome(home), //nolint:gosec // as said
		install(s.Attacker, program, 0o755), plantByRoot(dir, s.Attacker))
	if err != nil {
		return nil, err
	}
	target := attack.Target{Home: home, Planted: dir, Program: program}
	host, err := listen(ctx, &target)
	if err != nil {
		return nil, err
	}
	defer host.close()
	args := []string{mode}
	for _, r := range s.Rows {
		if r.Control != attack.Root || os.Geteuid() == 0 {
			args = append(args, r.ID)
		}
	}
	out, err := s.attackOutside(ctx, target, args)
	if err != nil {
		return nil, err
	}
	return decodeAll(bytes.NewReader(out))
}

func (s *session) attackOutside(ctx context.Context, target attack.Target, args []string) ([]byte, error) {
	encoded, err := json.Marshal(target)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, s.Attacker, args...)
	cmd.Env = []string{attack.TargetEnv + "=" + string(encoded)}
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
