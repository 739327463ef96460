package attack

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"

	"carrel/internal/jail"
)

const (
	protoMPTCP   = 262 // IPPROTO_MPTCP
	protoSCTP    = 132
	protoUDPLite = 136
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

// ruleSocket is the filter's list of families, types and protocols.
func ruleSocket() string { return seccompRule("socket") }

func networkRows() []Row {
	row := func(id, title string, c Control, attack func(*Target) error, by ...string) Row {
		return Row{ID: id, Group: groupNetwork, Tier: Tool, Title: title, StoppedBy: by, Control: c, Attack: attack}
	}
	return []Row{
		row("mptcp-bind", "bind by MPTCP, which Landlock's TCP rules do not see (hole 1)", Plain, bindBy(protoMPTCP), ruleSocket()),
		row("mptcp6-bind", "the same over IPv6", Plain, bind6By(protoMPTCP), ruleSocket()),
		row("mptcp-connect", "connect by MPTCP to a listener in the same sandbox", Plain, connectSelf(protoMPTCP), ruleSocket()),
		row("fastopen-sendto", "connect inside sendto (hole 2)", Plain, fastOpen(sendto), seccompRule("sendto"), RuleFastOpen),
		row("fastopen-sendmsg", "connect inside sendmsg (hole 2)", Plain, fastOpen(sendmsg), seccompRule("sendmsg"), RuleFastOpen),
		row("fastopen-sendmmsg", "connect inside sendmmsg (hole 2)", Plain, fastOpen(sendmmsg), seccompRule("sendmmsg"), RuleFastOpen),
		row("fastopen-option", "connect inside the first write (TCP_FASTOPEN_CONNECT)", Plain, fastOpenConnect, jail.RuleLandlockTCP),
		row("unix-path-worker", "connect to a socket in the worker's home by its path (hole 3)", Plain, connectUnixPath, sealedHome),
		row("unix-path-any", "find any Unix socket by walking the files", Plain, findSocket, noPath),
		row("tcp-bind", "bind a TCP port", Plain, bindBy(unix.IPPROTO_TCP), jail.RuleLandlockTCP),
		row("tcp-bind-any", "bind a TCP port by protocol 0", Plain, bindBy(0), jail.RuleLandlockTCP),
		row("tcp6-bind", "bind a TCP port over IPv6", Plain, bind6By(unix.IPPROTO_TCP), jail.RuleLandlockTCP),
		row("tcp-connect", "connect by TCP to a listener in the same sandbox", Plain, connectSelf(unix.IPPROTO_TCP), jail.RuleLandlockTCP),
		row("tcp6-connect", "connect by TCP over IPv6 to a listener in the same sandbox", Plain, connectSelf6, jail.RuleLandlockTCP),
		row("tcp-host", "connect to the host's loopback", Plain, connectHost, jail.LayerNetwork, jail.RuleLandlockTCP),
		row("tcp6-host", "connect to the host's loopback over IPv6", Plain, connectHost6, jail.LayerNetwork, jail.RuleLandlockTCP),
		row("tcp-mapped-host", "connect to the host's loopback by a mapped address", Plain, connectHostMapped, jail.LayerNetwork, jail.RuleLandlockTCP),
		row("tcp-outside", "begin a connection to another machine", Plain, connectOutside, jail.LayerNetwork, jail.RuleLandlockTCP),
		row("udp-host", "talk UDP to the host's loopback", Plain, echoHost, jail.LayerNetwork),
		row("udp-outside", "send UDP to another machine", Plain, sendOutside, jail.LayerNetwork),
		row("udp-broadcast", "send UDP to everybody nearby", Plain, routed4([4]byte{255, 255, 255, 255}, true), jail.LayerNetwork),
		row("udp-multicast", "send UDP to a group (mDNS)", Plain, routed4([4]byte{224, 0, 0, 251}, false), jail.LayerNetwork),
		row("udp6-outside", "a way to another machine over IPv6", Plain, routed6(outside6()), jail.LayerNetwork),
		row("metadata", "a way to the cloud's metadata", Plain, routed4([4]byte{169, 254, 169, 254}, false), jail.LayerNetwork),
		row("metadata6", "a way to the cloud's metadata over IPv6", Plain, routed6(metadata6()), jail.LayerNetwork),
		row("resolver", "a way to the host's name server", Plain, findResolver, jail.LayerNetwork, jail.LayerMount),
		row("interfaces", "see an interface that is not the loopback", Plain, seeInterface, jail.LayerNetwork),
		row("abstract-host", "connect to an abstract socket of the host", Plain, connectAbstract, jail.LayerNetwork, jail.RuleLandlockScope),
		row("interface-down", "change the sandbox's own interface", Fresh, takeLoopbackDown, capabilities),
		row("interface-address", "give the sandbox's own interface an address", Fresh, addAddress, capabilities),
		row("packet-mark", "mark packets for the host's rules (SO_MARK)", Fresh, option(unix.SOL_SOCKET, unix.SO_MARK, 7), capabilities),
		row("packet-priority", "send before everybody else (SO_PRIORITY)", Fresh, option(unix.SOL_SOCKET, unix.SO_PRIORITY, 7), capabilities),
		row("transparent", "send from foreign addresses (IP_TRANSPARENT)", Fresh, option(unix.SOL_IP, unix.IP_TRANSPARENT, 1), capabilities),
		row("buffer-force", "a socket buffer beyond the limit (SO_RCVBUFFORCE)", Root, option(unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 1<<30), capabilities, jail.LayerUser),
		row("firewall", "read the packet filter", Fresh, readFirewall, ruleSocket(), capabilities),
		row("tun", "open a network interface of one's own", Root, func(*Target) error { return openFor("/dev/net/tun", unix.O_RDWR) }, jail.LayerMount),
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
func listenUnbound(protocol int) (fd int, address *unix.SockaddrInet4, err error) {
	if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol); err != nil {
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

func connectSelf(protocol int) func(*Target) error {
	return func(*Target) error {
		_, address, err := listenUnbound(protocol)
		if err != nil {
			return fmt.Errorf("listen: %w", err)
		}
		return connectBy(protocol, address)
	}
}

func connectHost(t *Target) error {
	return connectTo(&unix.SockaddrInet4{Addr: loopback(), Port: t.TCP})
}

func connectTo(address unix.Sockaddr) error { return connectBy(unix.IPPROTO_TCP, address) }

func connectBy(protocol int, address unix.Sockaddr) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return err
	}
	return unix.Connect(fd, address)
}

// fastOpen sends with MSG_FASTOPEN on a socket that was never connected and then
// looks whether the listener got a connection.
func fastOpen(send func(fd int, to *unix.RawSockaddrInet4) unix.Errno) func(*Target) error {
	return func(*Target) error {
		listener, address, err := listenUnbound(unix.IPPROTO_TCP)
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
	if !t.inSandbox() {
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

func ioctl(fd int, request, argument uintptr) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, argument)
	return result(errno)
}
