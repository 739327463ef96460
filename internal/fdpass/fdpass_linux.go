// Package fdpass sends a small JSON message together with open descriptors over
// a Unix socketpair. The spawner, the jail's control line and the tool host all
// talk this way: a descriptor is the one thing a pipe cannot carry.
//
// A message is four bytes of length (big endian), which the descriptors ride
// on, and then that many bytes of JSON. The sockets are inherited, never bound
// to a path: a path could be connected to from inside a sandbox (Landlock below
// ABI 9 does not mediate connect on Unix sockets).
package fdpass

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxBytes bounds one message: a command with every argument and variable
	// the kernel takes (ARG_MAX is 2 MiB by default) and JSON's escaping.
	maxBytes = 4 << 20
	// maxFiles bounds the descriptors of one message; SCM_MAX_FD is 253.
	maxFiles = 16
)

// Conn is one end of a socketpair. Send and Recv may each be called by several
// goroutines; Recv gives each message to one of them.
type Conn struct {
	file *os.File
	raw  syscall.RawConn

	readMu  sync.Mutex
	writeMu sync.Mutex
}

// Pair makes two connected ends. Both are close-on-exec; give one to a child by
// its [os.File].
func Pair() (here *Conn, there *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socketpair: %w", err)
	}
	here, err = New(os.NewFile(uintptr(fds[0]), "socketpair"))
	if err != nil {
		_ = unix.Close(fds[1])
		return nil, nil, err
	}
	return here, os.NewFile(uintptr(fds[1]), "socketpair"), nil
}

// New wraps an end that was inherited. It takes the file over, also on error.
func New(f *os.File) (*Conn, error) {
	// A file made by os.NewFile joins the runtime's poller only if it does not
	// block already; without that a reader would hold a thread.
	fd := f.Fd()
	if err := unix.SetNonblock(int(fd), true); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("set non-blocking: %w", err)
	}
	// f.Fd() may have switched f itself to blocking mode: start over with a
	// duplicate that the poller sees as non-blocking from the first.
	dup, err := unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 3)
	_ = f.Close()
	if err != nil {
		return nil, fmt.Errorf("duplicate descriptor: %w", err)
	}
	file := os.NewFile(uintptr(dup), "socketpair")
	raw, err := file.SyscallConn()
	if err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("socketpair: %w", err)
	}
	return &Conn{file: file, raw: raw}, nil
}

// Close ends the connection; a Recv under way returns an error.
func (c *Conn) Close() error { return c.file.Close() }

// SetDeadline bounds Send and Recv; the zero time takes the bound away.
func (c *Conn) SetDeadline(t time.Time) error { return c.file.SetDeadline(t) }

// Send writes v and hands copies of files over; they stay open here.
func (c *Conn) Send(v any, files ...*os.File) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode message: %w", err)
	}
	if len(body) > maxBytes || len(files) > maxFiles {
		return fmt.Errorf("message of %d bytes and %d descriptors is too big", len(body), len(files))
	}
	frame := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(body)), uint32(len(body)))
	frame = append(frame, body...)
	var rights []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = int(f.Fd())
		}
		rights = unix.UnixRights(fds...)
	}
	c.writeMu.Lock()
	defer c.writeMu.Unlock()
	for len(frame) > 0 {
		n, err := c.sendmsg(frame, rights)
		if err != nil {
			return fmt.Errorf("send: %w", err)
		}
		frame, rights = frame[n:], nil
	}
	return nil
}

func (c *Conn) sendmsg(p, rights []byte) (n int, err error) {
	ctlErr := c.raw.Write(func(fd uintptr) bool {
		// MSG_NOSIGNAL: a peer that is gone is an error here, not a SIGPIPE.
		n, err = ignoringEINTR(func() (int, error) {
			return unix.SendmsgN(int(fd), p, rights, nil, unix.MSG_NOSIGNAL)
		})
		return !errors.Is(err, unix.EAGAIN)
	})
	return n, errors.Join(ctlErr, err)
}

// Recv reads one message into v and returns the descriptors that came with it,
// close-on-exec, for the caller to close. It returns io.EOF when the other end
// is closed between two messages.
func (c *Conn) Recv(v any) (files []*os.File, err error) {
	c.readMu.Lock()
	defer c.readMu.Unlock()
	defer func() {
		if err != nil {
			CloseAll(files)
			files = nil
		}
	}()
	var head [4]byte
	oob := make([]byte, unix.CmsgSpace(4*maxFiles))
	n, oobn, truncated, err := c.recvmsg(head[:], oob)
	if err != nil {
		return nil, err
	}
	if files, err = parseRights(oob[:oobn]); err != nil {
		return files, err
	}
	if truncated { // the kernel has put in what there was room for: it must be closed
		return files, fmt.Errorf("receive: more than %d descriptors", maxFiles)
	}
	if err := c.readFull(head[n:]); err != nil {
		return files, err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size > maxBytes {
		return files, fmt.Errorf("receive: message of %d bytes, at most %d are allowed", size, maxBytes)
	}
	body := make([]byte, size)
	if err := c.readFull(body); err != nil {
		return files, err
	}
	if err := json.Unmarshal(body, v); err != nil {
		return files, fmt.Errorf("decode message: %w", err)
	}
	return files, nil
}

// readFull reads the rest of a message that has begun, so its end is never io.EOF.
func (c *Conn) readFull(p []byte) error {
	_, err := io.ReadFull(c.file, p)
	if errors.Is(err, io.EOF) && len(p) > 0 {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return fmt.Errorf("receive: %w", err)
	}
	return nil
}

func (c *Conn) recvmsg(p, oob []byte) (n, oobn int, truncated bool, err error) {
	var flags int
	ctlErr := c.raw.Read(func(fd uintptr) bool {
		n, err = ignoringEINTR(func() (int, error) {
			var n int
			n, oobn, flags, _, err = unix.Recvmsg(int(fd), p, oob, unix.MSG_CMSG_CLOEXEC)
			return n, err
		})
		return !errors.Is(err, unix.EAGAIN)
	})
	switch {
	case ctlErr != nil:
		return 0, 0, false, ctlErr
	case err != nil:
		return 0, 0, false, fmt.Errorf("receive: %w", err)
	case n == 0:
		return 0, 0, false, io.EOF
	}
	return n, oobn, flags&unix.MSG_CTRUNC != 0, nil
}

func parseRights(oob []byte) ([]*os.File, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("receive descriptors: %w", err)
	}
	var files []*os.File
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			return files, fmt.Errorf("receive descriptors: %w", err)
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "passed"))
		}
	}
	return files, nil
}

// CloseAll closes files, skipping nil ones.
func CloseAll(files []*os.File) {
	for _, f := range files {
		if f != nil {
			_ = f.Close()
		}
	}
}

func ignoringEINTR(f func() (int, error)) (int, error) {
	for {
		n, err := f()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}
