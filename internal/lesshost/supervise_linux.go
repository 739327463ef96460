package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// modeSupervise is the first argument of the supervisor: then come the newest
// Landlock ABI there is (0 = the kernel's own), the namespaces there are none of, as
// flags of clone(2), and the errno that they get.
const modeSupervise = "supervise"

const lineFD = 3

func startSupervisor(answers []answer, abi uint64) (line int, err error) {
	var flags uint32
	var errno unix.Errno
	for _, a := range answers {
		if a.call == unix.SYS_CLONE3 {
			flags, errno = flags|a.has, a.errno
		}
	}
	self, err := os.Executable()
	if err != nil {
		return -1, err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	theirs := os.NewFile(uintptr(pair[1]), "line")
	defer func() { _ = theirs.Close() }()
	cmd := exec.Command(self, modeSupervise, strconv.FormatUint(abi, 10), //nolint:noctx // it ends with those it answers
		strconv.FormatUint(uint64(flags), 10), strconv.Itoa(int(errno)), "--", "listener")
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // a terminal's signals are not for it
	return pair[0], cmd.Start()
}

// supervisor answers calls of those under the filter.
type supervisor struct {
	listener int
	abi      uint64
	flags    uint64
	errno    unix.Errno
}

func supervise(args []string) error {
	if len(args) != 3 {
		return errors.New("the supervisor is started by carrel-lesshost alone")
	}
	var numbers [3]uint64
	for i, arg := range args {
		n, err := strconv.ParseUint(arg, 10, 32)
		if err != nil {
			return err
		}
		numbers[i] = n
	}
	s := supervisor{abi: numbers[0], flags: numbers[1], errno: unix.Errno(numbers[2])}
	control := make([]byte, unix.CmsgSpace(wordBytes))
	_, n, _, _, err := unix.Recvmsg(lineFD, make([]byte, 1), control, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return fmt.Errorf("wait for the listener: %w", err)
	}
	messages, err := unix.ParseSocketControlMessage(control[:n])
	if err != nil || len(messages) != 1 {
		return nil // whoever was to be supervised has ended before
	}
	listeners, err := unix.ParseUnixRights(&messages[0])
	if err != nil {
		return err
	}
	s.listener = listeners[0]
	return s.run()
}

// notification is struct seccomp_notif, response struct seccomp_notif_resp
// (seccomp_unotify(2)).
type (
	notification struct {
		id    uint64
		pid   uint32
		flags uint32
		call  int32
		arch  uint32
		ip    uint64
		args  [6]uint64
	}
	response struct {
		id    uint64
		value int64
		errno int32
		flags uint32
	}
)

// run answers until nobody is left under the filter.
func (s *supervisor) run() error {
	for {
		ready := []unix.PollFd{{Fd: int32(s.listener), Events: unix.POLLIN}}
		if _, err := unix.Poll(ready, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		if ready[0].Revents&unix.POLLIN == 0 {
			if ready[0].Revents&unix.POLLHUP != 0 {
				return nil
			}
			continue
		}
		var n notification
		err := s.ioctl(unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(&n))
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINTR) {
			continue // the caller was killed
		}
		if err != nil {
			return fmt.Errorf("receive a call: %w", err)
		}
		r := s.answer(&n)
		r.id = n.id
		if err := s.ioctl(unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&r)); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("answer a call: %w", err)
		}
	}
}

func (s *supervisor) ioctl(request uintptr, p unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(s.listener), request, uintptr(p)); errno != 0 {
		return errno
	}
	return nil
}

func (s *supervisor) answer(n *notification) response {
	if n.call == unix.SYS_LANDLOCK_CREATE_RULESET {
		return s.createRuleset(n)
	}
	// clone3: the flags stand first in its structure. What cannot be read is
	// answered as by a kernel before clone3, and callers fall back to clone.
	flags, err := words(n.pid, n.args[0], 1)
	switch {
	case err != nil:
		return refuse(unix.ENOSYS)
	case flags[0]&s.flags != 0:
		return refuse(s.errno)
	}
	return goOn()
}

func refuse(errno unix.Errno) response { return response{errno: -int32(errno)} }

func goOn() response { return response{flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE} }

// landlockABIs are what each version of Landlock knows: how many rights on files,
// on the network and scopes (linux/landlock.h of Linux 5.13, 5.19, 6.2, 6.7, 6.10
// and 6.12).
var landlockABIs = map[uint64]struct{ files, network, scopes uint }{ //nolint:gochecknoglobals // a table
	1: {files: 13},
	2: {files: 14},
	3: {files: 15},
	4: {files: 15, network: 2},
	5: {files: 16, network: 2},
	6: {files: 16, network: 2, scopes: 2},
}

// createRuleset does what the kernel of that version does with what it does not
// know: E2BIG for a longer structure with something in it, EINVAL for a right.
func (s *supervisor) createRuleset(n *notification) response {
	address, size, flags := n.args[0], n.args[1], uint32(n.args[2])
	if flags != 0 {
		if flags == unix.LANDLOCK_CREATE_RULESET_VERSION && address == 0 && size == 0 {
			return response{value: int64(s.abi)}
		}
		return refuse(unix.EINVAL)
	}
	const fields, fieldBytes = 3, 8
	count := min(size/fieldBytes, fields)
	given, err := words(n.pid, address, count)
	if err != nil {
		return refuse(unix.EFAULT)
	}
	known := landlockABIs[s.abi]
	for i, bits := range []uint{known.files, known.network, known.scopes} {
		if uint64(i) >= count || given[i]>>bits == 0 {
			continue
		}
		if bits == 0 {
			return refuse(unix.E2BIG)
		}
		return refuse(unix.EINVAL)
	}
	return goOn()
}

// words reads another process's memory. It is no file of /proc, which is root's as
// soon as the process has made itself undumpable.
func words(pid uint32, address, count uint64) ([]uint64, error) {
	w := make([]uint64, count)
	if count == 0 {
		return w, nil
	}
	size := int(count * argumentBytes)
	local := []unix.Iovec{{Base: (*byte)(unsafe.Pointer(&w[0])), Len: uint64(size)}}
	n, err := unix.ProcessVMReadv(int(pid), local, []unix.RemoteIovec{{Base: uintptr(address), Len: size}}, 0)
	if err == nil && n != size {
		err = unix.EFAULT
	}
	return w, err
}
