package jail

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// setUpNetwork leaves the new network namespace with its loopback only, and
// turns TCP Fast Open off: a connection that begins inside a send would pass by
// Landlock's connect rule (hole 2; seccomp refuses the flag as well). The setting is
// in the sandbox's /proc, so without one only seccomp stands there.
func setUpNetwork(proc bool) error {
	if err := raiseLoopback(); err != nil {
		return fmt.Errorf("loopback: %w", err)
	}
	if !proc {
		return nil
	}
	return os.WriteFile(newRoot+"/proc/sys/net/ipv4/tcp_fastopen", []byte("0"), filePerm)
}

func raiseLoopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	// struct ifreq (netdevice(7)): 16 bytes of name, then the flags.
	var request struct {
		name  [unix.IFNAMSIZ]byte
		flags uint16
		_     [22]byte
	}
	copy(request.name[:], "lo")
	request.flags = unix.IFF_UP | unix.IFF_RUNNING
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCSIFFLAGS, uintptr(unsafe.Pointer(&request)))
	if errno != 0 {
		return errno
	}
	return nil
}
