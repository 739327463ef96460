package attack

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"carrel/internal/jail"
)

const (
	protoMPTCP   = 262 // IPPROTO_MPTCP
	protoSCTP    = 132
	protoUDPLite = 136
	ruleSocket   = "seccomp:socket"
	ruleFastOpen = "seccomp:fastopen"
)

// open makes a socket and closes it at once.
func open(family, kind, protocol int) func(*Target) error {
	return func(*Target) error {
		fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, protocol)
		if err != nil {
			return err
		}
		return unix.Close(fd)
	}
}

func networkRows() []Row {
	row := func(id, title string, c Control, attack func(*Target) error, by ...string) Row {
		return Row{ID: id, Group: groupNetwork, Tier: Tool, Title: title, StoppedBy: by, Control: c, Attack: attack}
	}
	return []Row{
		row("mptcp-bind", "bind by MPTCP, which Landlock's TCP rules do not see (hole 1)", Plain, bindBy(protoMPTCP), ruleSocket),
		row("fastopen-sendto", "connect inside sendto (hole 2)", Plain, fastOpen(sendto), ruleFastOpen),
		row("fastopen-sendmsg", "connect inside sendmsg (hole 2)", Plain, fastOpen(sendmsg), ruleFastOpen),
		row("fastopen-sendmmsg", "connect inside sendmmsg (hole 2)", Plain, fastOpen(sendmmsg), ruleFastOpen),
		row("unix-path-worker", "connect to a socket in the worker's home by its path (hole 3)", Plain, connectUnixPath, "no-path"),
		row("unix-path-any", "find any Unix socket by walking the files", Plain, findSocket, "no-path"),
		row("tcp-bind", "bind a TCP port", Plain, bindBy(unix.IPPROTO_TCP), jail.RuleLandlockTCP),
		row("tcp-connect", "connect by TCP to a listener in the same sandbox", Plain, connectSelf, jail.RuleLandlockTCP),
		row("tcp-host", "connect to the host's loopback", Plain, connectHost, jail.LayerNetwork, jail.RuleLandlockTCP),
		row("udp-host", "talk UDP to the host's loopback", Plain, echoHost, jail.LayerNetwork),
		row("udp-outside", "send UDP to another machine", Plain, sendOutside, jail.LayerNetwork),
		row("abstract-host", "connect to an abstract socket of the host", Plain, connectAbstract, jail.LayerNetwork, jail.RuleLandlockScope),
		row("icmp-raw", "raw ICMP", Fresh, open(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP), ruleSocket, jail.LayerUser),
		row("raw", "raw IP", Fresh, open(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW), ruleSocket, jail.LayerUser),
		row("raw-tcp", "raw IP by a protocol that the filter allows", Fresh, open(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_TCP), ruleSocket, jail.LayerUser),
		row("packet", "packet socket", Fresh, open(unix.AF_PACKET, unix.SOCK_RAW, 0), ruleSocket, jail.LayerUser),
		row("packet-legacy", "packet socket by AF_INET and SOCK_PACKET", Fresh, open(unix.AF_INET, unix.SOCK_PACKET, 0), ruleSocket, jail.LayerUser),
		row("vsock", "socket to the hypervisor, which no namespace holds", Plain, open(unix.AF_VSOCK, unix.SOCK_STREAM, 0), ruleSocket),
		row("netlink-generic", "netlink other than route", Plain, open(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_GENERIC), ruleSocket),
		row("netlink-uevent", "netlink of device events", Plain, open(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_KOBJECT_UEVENT), ruleSocket),
		row("sctp", "SCTP by its protocol", Plain, open(unix.AF_INET, unix.SOCK_STREAM, protoSCTP), ruleSocket),
		row("sctp-by-type", "SCTP by its type and protocol 0", Plain, open(unix.AF_INET, unix.SOCK_SEQPACKET, 0), ruleSocket),
		row("udplite", "UDP-Lite", Plain, open(unix.AF_INET, unix.SOCK_DGRAM, protoUDPLite), ruleSocket),
		row("alg", "the kernel's ciphers by AF_ALG", Plain, open(unix.AF_ALG, unix.SOCK_SEQPACKET, 0), ruleSocket),
		row("xdp", "AF_XDP", Fresh, open(unix.AF_XDP, unix.SOCK_RAW, 0), ruleSocket, jail.LayerUser),
		row("interface-down", "change the sandbox's own interface", Fresh, takeLoopbackDown, jail.LayerUser, "capabilities"),
	}
}

func bindBy(protocol int) func(*Target) error {
	return func(*Target) error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, protocol)
		if err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrInet4{Addr: loopback()})
	}
}

func loopback() [4]byte { return [4]byte{127, 0, 0, 1} }

// listenUnbound listens on a port that the kernel picks: without a bind there is
// nothing that Landlock would refuse.
func listenUnbound() (fd int, address *unix.SockaddrInet4, err error) {
	if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_TCP); err != nil {
		return -1, nil, err
	}
	if err := unix.Listen(fd, 4); err != nil {
		return -1, nil, err
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return -1, nil, err
	}
	return fd, &unix.SockaddrInet4{Addr: loopback(), Port: name.(*unix.SockaddrInet4).Port}, nil
}

func connectSelf(*Target) error {
	_, address, err := listenUnbound()
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	return connectTo(address)
}

func connectHost(t *Target) error {
	return connectTo(&unix.SockaddrInet4{Addr: loopback(), Port: t.TCP})
}

func connectTo(address unix.Sockaddr) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return err
	}
	return unix.Connect(fd, address)
}

// fastOpen sends with MSG_FASTOPEN on a socket that was never connected and then
// looks whether the listener got a connection.
func fastOpen(send func(fd int, to *unix.RawSockaddrInet4) unix.Errno) func(*Target) error {
	return func(*Target) error {
		listener, address, err := listenUnbound()
		if err != nil {
			return fmt.Errorf("listen: %w", err)
		}
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
		if err != nil {
			return err
		}
		to := unix.RawSockaddrInet4{Family: unix.AF_INET, Port: uint16(address.Port<<8 | address.Port>>8), Addr: loopback()}
		if errno := send(fd, &to); errno != 0 {
			return errno
		}
		_, _, err = unix.Accept(listener)
		return err
	}
}

func sendto(fd int, to *unix.RawSockaddrInet4) unix.Errno {
	b := [1]byte{'x'}
	_, _, errno := unix.Syscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&b)), 1, unix.MSG_FASTOPEN,
		uintptr(unsafe.Pointer(to)), unix.SizeofSockaddrInet4)
	return errno
}

func message(to *unix.RawSockaddrInet4) unix.Msghdr {
	b := []byte{'x'}
	return unix.Msghdr{
		Name: (*byte)(unsafe.Pointer(to)), Namelen: unix.SizeofSockaddrInet4,
		Iov: &unix.Iovec{Base: &b[0], Len: 1}, Iovlen: 1,
	}
}

func sendmsg(fd int, to *unix.RawSockaddrInet4) unix.Errno {
	m := message(to)
	_, _, errno := unix.Syscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(&m)), unix.MSG_FASTOPEN)
	return errno
}

func sendmmsg(fd int, to *unix.RawSockaddrInet4) unix.Errno {
	m := struct {
		header unix.Msghdr
		length uint32
		_      uint32
	}{header: message(to)}
	_, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&m)), 1, unix.MSG_FASTOPEN, 0, 0)
	return errno
}

func echoHost(t *Target) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 300_000}); err != nil {
		return err
	}
	if err := unix.Sendto(fd, []byte("x"), 0, &unix.SockaddrInet4{Addr: loopback(), Port: t.UDP}); err != nil {
		return err
	}
	_, _, err = unix.Recvfrom(fd, make([]byte, 1), 0)
	return err
}

// sendOutside takes an address of RFC 5737 that leads to nobody; a route is enough.
func sendOutside(*Target) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return unix.Sendto(fd, []byte("x"), 0, &unix.SockaddrInet4{Addr: [4]byte{192, 0, 2, 1}, Port: 9})
}

func connectUnix(name string) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	return unix.Connect(fd, &unix.SockaddrUnix{Name: name})
}

func connectAbstract(t *Target) error { return connectUnix("@" + t.Socket) }

func connectUnixPath(t *Target) error { return connectUnix(filepath.Join(t.Home, "broker.sock")) }

// findSocket looks for a socket that can be connected to, in all of a sandbox
// but the host's programs; in a control below the stand-in's home.
func findSocket(t *Target) error {
	root := "/"
	if t.PID != 1 {
		root = t.Home
	}
	found := errStopped
	_ = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return nil //nolint:nilerr // what cannot be read is not reachable
		case d.IsDir() && root == "/" && (path == "/usr" || path == "/proc" || path == "/etc"):
			return filepath.SkipDir
		case d.Type() == fs.ModeSocket && connectUnix(path) == nil:
			found = nil
			return filepath.SkipAll
		}
		return nil
	})
	return found
}

func takeLoopbackDown(*Target) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(0)
	return ioctl(fd, unix.SIOCSIFFLAGS, uintptr(unsafe.Pointer(request)))
}

func ioctl(fd int, request, argument uintptr) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, argument)
	return result(errno)
}

// readsCanary reports whether a file holds the canary and can be read.
func readsCanary(path string) error {
	content, err := os.ReadFile(path)
	switch {
	case err != nil:
		return err
	case !strings.Contains(string(content), Canary):
		return errStopped
	}
	return nil
}
