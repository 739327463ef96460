package attack

import (
	"errors"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// tgkill tries every thread that the process may have: Landlock judges each by
// its own domain (trap 3).
func tgkill(pid int) error {
	err := error(errStopped)
	for tid := pid; tid < pid+64; tid++ {
		if e := unix.Tgkill(pid, tid, harmless); e == nil {
			return nil
		} else if tid == pid {
			err = e
		}
	}
	return err
}

func tkill(pid int) error {
	_, _, errno := unix.Syscall(unix.SYS_TKILL, uintptr(pid), uintptr(harmless), 0)
	return result(errno)
}

func killGroup(pid int) error {
	group, err := unix.Getpgid(pid)
	if err != nil {
		return err
	}
	if group == unix.Getpgrp() || group == 1 { // a victim's is the control's own, and -1 is everybody
		return unix.Kill(pid, harmless)
	}
	return unix.Kill(-group, harmless)
}

// pidfdSignalGroup is PIDFD_SIGNAL_PROCESS_GROUP (linux/pidfd.h).
const pidfdSignalGroup = 1 << 2

func pidfdSignal(flags int) func(pid int) error {
	return func(pid int) error {
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			return err
		}
		defer func() { _ = unix.Close(fd) }()
		err = unix.PidfdSendSignal(fd, harmless, nil, flags)
		if flags != 0 && errors.Is(err, unix.ESRCH) {
			err = unix.PidfdSendSignal(fd, harmless, nil, 0) // leads no group, as a control's victim
		}
		return err
	}
}

func sigqueue(pid int) error {
	var info unix.Siginfo
	info.Signo, info.Code = int32(harmless), -1 // SI_QUEUE
	_, _, errno := unix.Syscall(unix.SYS_RT_SIGQUEUEINFO, uintptr(pid), uintptr(harmless), uintptr(unsafe.Pointer(&info)))
	return result(errno)
}

func tgsigqueue(pid int) error {
	var info unix.Siginfo
	info.Signo, info.Code = int32(harmless), -1 // SI_QUEUE
	_, _, errno := unix.Syscall6(unix.SYS_RT_TGSIGQUEUEINFO, uintptr(pid), uintptr(pid), uintptr(harmless), uintptr(unsafe.Pointer(&info)), 0, 0)
	return result(errno)
}

// sigio makes the process the owner of a socket that becomes readable, with SIGTERM
// for a signal.
func sigio(own func(fd uintptr, pid int) error) func(pid int) error {
	return func(pid int) error {
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		fd := uintptr(pair[0])
		if _, err := unix.FcntlInt(fd, unix.F_SETSIG, int(unix.SIGTERM)); err != nil {
			return err
		}
		if err := own(fd, pid); err != nil {
			return err
		}
		if _, err := unix.FcntlInt(fd, unix.F_SETFL, unix.O_ASYNC|unix.O_NONBLOCK); err != nil {
			return err
		}
		_, err = unix.Write(pair[1], []byte("x"))
		return err
	}
}

func setOwn(fd uintptr, pid int) error {
	_, err := unix.FcntlInt(fd, unix.F_SETOWN, pid)
	return err
}

func setOwnThread(fd uintptr, pid int) error {
	owner := struct{ kind, pid int32 }{0 /* F_OWNER_TID */, int32(pid)}
	_, _, errno := unix.Syscall(unix.SYS_FCNTL, fd, unix.F_SETOWN_EX, uintptr(unsafe.Pointer(&owner)))
	return result(errno)
}

// asm-generic/sockios.h
const (
	fioSetOwn = 0x8901
	siocSPgrp = 0x8902
)

func setOwnIoctl(request uintptr) func(fd uintptr, pid int) error {
	return func(fd uintptr, pid int) error {
		owner := int32(pid)
		return ioctl(int(fd), request, uintptr(unsafe.Pointer(&owner)))
	}
}

// killAll takes a signal that a tool host of ours survives and another's command does
// not. Its control is in a PID namespace of its own, where it ends nobody else.
func killAll(t *Target) error {
	if !t.inSandbox() && os.Getpid() != 1 {
		return unix.EOPNOTSUPP
	}
	if err := unix.Kill(-1, unix.SIGHUP); err != nil {
		return err
	}
	if t.alive() {
		return errStopped
	}
	return nil
}
