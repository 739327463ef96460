package attack

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// familyRows are about kinds of sockets.
func familyRows() []Row {
	row := func(id, title string, c Control, attack func(*Target) error, by ...string) Row {
		return Row{ID: id, Group: groupNetwork, Tier: Tool, Title: title, StoppedBy: append([]string{ruleSocket()}, by...), Control: c, Attack: attack}
	}
	const afMCTP, afQIPCRTR, afSMC, afTIPC = 45, 42, 43, 30
	return []Row{
		row("icmp-raw", "raw ICMP", Fresh, open(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP), capabilities),
		row("icmp6-raw", "raw ICMP over IPv6", Fresh, open(unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_ICMPV6), capabilities),
		row("ping", "ICMP by a datagram socket", Plain, ping(unix.AF_INET, unix.IPPROTO_ICMP)),
		row("ping6", "ICMP by a datagram socket over IPv6", Plain, ping(unix.AF_INET6, unix.IPPROTO_ICMPV6)),
		row("raw", "raw IP", Fresh, open(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_RAW), capabilities),
		row("raw6", "raw IPv6", Fresh, open(unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_RAW), capabilities),
		// The filter allows the protocol and leaves the type to the kernel.
		{
			ID: "raw-tcp", Group: groupNetwork, Tier: Tool, Title: "raw IP by a protocol that the filter allows", Control: Fresh,
			StoppedBy: []string{capabilities}, Attack: open(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_TCP),
		},
		row("packet", "packet socket", Fresh, open(unix.AF_PACKET, unix.SOCK_RAW, 0), capabilities),
		row("packet-datagram", "packet socket without headers", Fresh, open(unix.AF_PACKET, unix.SOCK_DGRAM, 0), capabilities),
		row("packet-legacy", "packet socket by AF_INET and SOCK_PACKET", Fresh, open(unix.AF_INET, unix.SOCK_PACKET, 0), capabilities),
		row("vsock", "socket to the hypervisor, which no namespace holds", Plain, open(unix.AF_VSOCK, unix.SOCK_STREAM, 0)),
		row("vsock-datagram", "datagrams to the hypervisor", Plain, open(unix.AF_VSOCK, unix.SOCK_DGRAM, 0)),
		row("netlink-generic", "netlink other than route", Plain, open(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_GENERIC)),
		row("netlink-uevent", "netlink of device events", Plain, open(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_KOBJECT_UEVENT)),
		row("netlink-diag", "netlink that lists sockets", Plain, open(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_SOCK_DIAG)),
		row("netlink-audit", "netlink of the audit log", Plain, open(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_AUDIT)),
		row("netlink-any", "any netlink but route", Plain, anyNetlink),
		row("sctp", "SCTP by its protocol", Plain, open(unix.AF_INET, unix.SOCK_STREAM, protoSCTP)),
		row("sctp6", "SCTP over IPv6", Plain, open(unix.AF_INET6, unix.SOCK_STREAM, protoSCTP)),
		row("sctp-by-type", "SCTP by its type and protocol 0", Plain, open(unix.AF_INET, unix.SOCK_SEQPACKET, 0)),
		row("dccp", "DCCP by its type and protocol 0", Plain, open(unix.AF_INET, unix.SOCK_DCCP, 0)),
		row("udplite", "UDP-Lite", Plain, open(unix.AF_INET, unix.SOCK_DGRAM, protoUDPLite)),
		row("udplite6", "UDP-Lite over IPv6", Plain, open(unix.AF_INET6, unix.SOCK_DGRAM, protoUDPLite)),
		row("l2tp", "L2TP", Plain, open(unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_L2TP)),
		row("alg", "the kernel's ciphers by AF_ALG", Plain, open(unix.AF_ALG, unix.SOCK_SEQPACKET, 0)),
		row("xdp", "AF_XDP", Fresh, open(unix.AF_XDP, unix.SOCK_RAW, 0), capabilities),
		row("key", "the kernel's own keys for IPsec", Fresh, open(unix.AF_KEY, unix.SOCK_RAW, 2), capabilities),
		row("bluetooth", "Bluetooth", Plain, open(unix.AF_BLUETOOTH, unix.SOCK_SEQPACKET, 0)),
		row("can", "a car's bus", Plain, open(unix.AF_CAN, unix.SOCK_RAW, 1)),
		row("rds", "RDS", Plain, open(unix.AF_RDS, unix.SOCK_SEQPACKET, 0)),
		row("tipc", "TIPC", Plain, open(afTIPC, unix.SOCK_SEQPACKET, 0)),
		row("qipcrtr", "Qualcomm's router", Plain, open(afQIPCRTR, unix.SOCK_DGRAM, 0)),
		row("smc", "SMC, which is TCP to the caller", Plain, open(afSMC, unix.SOCK_STREAM, 0)),
		row("mctp", "MCTP", Plain, open(afMCTP, unix.SOCK_DGRAM, 0)),
		row("family-any", "any family but those of the list", Plain, anyFamily),
		row("family-garbage", "a family that is refused, with garbage above its 32 bits", Plain, garbageFamily),
	}
}

// ping takes what only some hosts give to anybody (net.ipv4.ping_group_range).
func ping(family, protocol int) func(*Target) error {
	return func(t *Target) error {
		err := open(family, unix.SOCK_DGRAM, protocol)(t)
		if !t.inSandbox() && errors.Is(err, unix.EACCES) {
			return fmt.Errorf("nobody may here: %w", unix.EOPNOTSUPP)
		}
		return err
	}
}

// anyFamily asks for sockets of every family and the types that one may have. Who
// may not ask for one says nothing of another.
func anyFamily(t *Target) error {
	const families = 64 // AF_MAX is 46 in Linux 6.18
	for family := range families {
		switch family {
		case unix.AF_UNIX, unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK:
			continue
		}
		for _, kind := range []int{unix.SOCK_STREAM, unix.SOCK_DGRAM, unix.SOCK_RAW, unix.SOCK_SEQPACKET} {
			if open(family, kind, 0)(t) == nil {
				return nil
			}
		}
	}
	return errStopped
}

func anyNetlink(t *Target) error {
	const protocols = 32 // MAX_LINKS
	for protocol := range protocols {
		if protocol != unix.NETLINK_ROUTE && open(unix.AF_NETLINK, unix.SOCK_RAW, protocol)(t) == nil {
			return nil
		}
	}
	return errStopped
}

// garbageFamily: the kernel looks at 32 bits, a filter at 64.
func garbageFamily(*Target) error {
	_, _, errno := unix.Syscall(unix.SYS_SOCKET, garbageBits|unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	return result(errno)
}

func outside6() [16]byte  { return [16]byte{0x20, 0x01, 0x0d, 0xb8, 15: 1} } // RFC 3849
func metadata6() [16]byte { return [16]byte{0xfd, 0x00, 0x0e, 0xc2, 14: 0x02, 15: 0x54} }

func loopback6() [16]byte { return [16]byte{15: 1} }

func bind6By(protocol int) func(*Target) error {
	return func(*Target) error {
		fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, protocol)
		if err != nil {
			return err
		}
		return absent6(unix.Bind(fd, &unix.SockaddrInet6{Addr: loopback6()}))
	}
}

// absent6 tells of a host whose loopback has no ::1.
func absent6(err error) error {
	if errors.Is(err, unix.EADDRNOTAVAIL) {
		return fmt.Errorf("no ::1 here: %w", unix.EAFNOSUPPORT)
	}
	return err
}

func connect6(to *unix.SockaddrInet6) error {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return err
	}
	return absent6(unix.Connect(fd, to))
}

func connectSelf6(*Target) error {
	listener, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return err
	}
	if err := unix.Listen(listener, 1); err != nil {
		return err
	}
	name, err := unix.Getsockname(listener)
	if err != nil {
		return err
	}
	return connect6(&unix.SockaddrInet6{Addr: loopback6(), Port: name.(*unix.SockaddrInet6).Port})
}

func connectHost6(t *Target) error {
	if t.TCP6 == 0 {
		return fmt.Errorf("no listener on ::1: %w", unix.EAFNOSUPPORT)
	}
	return connect6(&unix.SockaddrInet6{Addr: loopback6(), Port: t.TCP6})
}

// connectHostMapped goes by ::ffff:127.0.0.1.
func connectHostMapped(t *Target) error {
	return connect6(&unix.SockaddrInet6{Addr: [16]byte{10: 0xff, 11: 0xff, 12: 127, 15: 1}, Port: t.TCP})
}

// connectOutside begins a connection that nobody will ever answer (RFC 5737).
func connectOutside(*Target) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_TCP)
	if err != nil {
		return err
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: [4]byte{192, 0, 2, 1}, Port: 9}); !errors.Is(err, unix.EINPROGRESS) {
		return err
	}
	return unix.Close(fd)
}

// fastOpenConnect has the kernel put off the connection to the first write. It is
// connect(2) all the same, and Landlock sees it.
func fastOpenConnect(*Target) error {
	_, address, err := listenUnbound(unix.IPPROTO_TCP)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err != nil {
		return err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_TCP, unix.TCP_FASTOPEN_CONNECT, 1); err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		return err
	}
	if err := unix.Connect(fd, address); err != nil {
		return err
	}
	_, err = unix.Write(fd, []byte("x"))
	return err
}

// routed4 asks for a way to an address, which is there or not; nothing is sent.
func routed4(to [4]byte, broadcast bool) func(*Target) error {
	return func(*Target) error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		if broadcast {
			if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 1); err != nil {
				return err
			}
		}
		return unix.Connect(fd, &unix.SockaddrInet4{Addr: to, Port: 53})
	}
}

func routed6(to [16]byte) func(*Target) error {
	return func(*Target) error {
		fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		return absent6(unix.Connect(fd, &unix.SockaddrInet6{Addr: to, Port: 53}))
	}
}

// findResolver looks up who resolves names here and asks for a way there.
func findResolver(t *Target) error {
	content, err := os.ReadFile("/etc/resolv.conf")
	if err != nil {
		return err
	}
	err = fmt.Errorf("no name server: %w", unix.ENODEV)
	for line := range strings.Lines(string(content)) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0] != "nameserver" {
			continue
		}
		ip := net.ParseIP(fields[1])
		if four := ip.To4(); four != nil {
			err = routed4([4]byte(four), false)(t)
		} else if len(ip) == net.IPv6len {
			err = routed6([16]byte(ip))(t)
		}
		if err == nil {
			return nil
		}
	}
	return err
}

// seeInterface asks the kernel for the interface after the loopback, by number.
func seeInterface(*Target) error {
	const some = 1024
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	for index := uint32(2); index < some; index++ {
		request, err := unix.NewIfreq("none")
		if err != nil {
			return err
		}
		request.SetUint32(index)
		if ioctl(fd, unix.SIOCGIFNAME, uintptr(unsafe.Pointer(request))) == nil {
			return nil
		}
	}
	return unix.ENODEV
}

func takeLoopbackDown(*Target) error {
	return setInterface(unix.SIOCSIFFLAGS, func(r *unix.Ifreq) error { r.SetUint16(0); return nil })
}

func addAddress(*Target) error {
	return setInterface(unix.SIOCSIFADDR, func(r *unix.Ifreq) error { return r.SetInet4Addr([]byte{192, 0, 2, 7}) })
}

func setInterface(request uintptr, fill func(*unix.Ifreq) error) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	if err := fill(lo); err != nil {
		return err
	}
	return ioctl(fd, request, uintptr(unsafe.Pointer(lo)))
}

func option(level, name, value int) func(*Target) error {
	return func(*Target) error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		return unix.SetsockoptInt(fd, level, name, value)
	}
}

// readFirewall reads the old tables by a raw socket, as iptables does.
func readFirewall(*Target) error {
	const getInfo = 64 // IPT_SO_GET_INFO
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return err
	}
	var info [84]byte // struct ipt_getinfo
	copy(info[:], "filter")
	size := uint32(len(info))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_IP, getInfo,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	if errno == unix.ENOPROTOOPT {
		return unix.EOPNOTSUPP
	}
	return result(errno)
}
