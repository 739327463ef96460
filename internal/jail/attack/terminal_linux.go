package attack

import (
	"fmt"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	tiocLinux   = 0x541c // TIOCLINUX
	garbageBits = 0xdeadbeef << 32
)

func terminalRows() []Row {
	row := func(id, title string, attack func(*Target) error, by ...string) Row {
		return Row{ID: id, Group: groupTerminal, Tier: Tool, Title: title, StoppedBy: by, Control: Plain, Attack: attack}
	}
	on := func(request uintptr, value int32) func(*Target) error {
		return func(*Target) error {
			fd, err := controllingTerminal()
			if err != nil {
				return err
			}
			_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(unsafe.Pointer(&value)))
			return reached(errno)
		}
	}
	return []Row{
		row("tiocsti", "type into a terminal", on(unix.TIOCSTI, 'x'), seccompRule("ioctl")),
		row("tiocsti-garbage", "type into a terminal, with garbage above the request's 32 bits", on(garbageBits|unix.TIOCSTI, 'x'), seccompRule("ioctl")),
		row("tiocsti-sign", "type into a terminal, with all bits above the request's 32", on(0xffffffff<<32|unix.TIOCSTI, 'x'), seccompRule("ioctl")),
		row("tioclinux", "paste into a terminal", on(tiocLinux, 2), seccompRule("ioctl")),
		row("line-discipline", "load a line discipline into the kernel", on(unix.TIOCSETD, 0), seccompRule("ioctl")),
	}
}

// controllingTerminal makes a pseudo-terminal the session's own, which needs
// nothing but to lead the session.
func controllingTerminal() (int, error) {
	master, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return -1, fmt.Errorf("open ptmx: %w", err)
	}
	if err := unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0); err != nil {
		return -1, fmt.Errorf("unlock: %w", err)
	}
	number, err := unix.IoctlGetInt(master, unix.TIOCGPTN)
	if err != nil {
		return -1, fmt.Errorf("number: %w", err)
	}
	slave, err := unix.Open("/dev/pts/"+strconv.Itoa(number), unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	if err != nil {
		return -1, fmt.Errorf("open slave: %w", err)
	}
	// Without it TIOCSTI on the terminal is refused by the kernel itself.
	if err := unix.IoctlSetInt(slave, unix.TIOCSCTTY, 0); err != nil {
		return -1, fmt.Errorf("make it the controlling terminal: %w", err)
	}
	return slave, nil
}
