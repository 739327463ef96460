package main

import (
	"fmt"
	"math/bits"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// answer is what the kernel says to a call.
type answer struct {
	call uint32
	arg  uint32 // the argument that is looked at: its lower half
	// The answer is given if the argument has one of the bits of has, or is is; or
	// whatever it is.
	has, is uint32
	any     bool
	errno   unix.Errno
	// ask has the supervisor answer: by the errno, or by letting the call happen.
	ask bool
}

// withoutNamespace answers what would make a namespace of one kind. The flags of
// clone3 lie in memory, where no filter sees them.
func withoutNamespace(flag uint32, errno unix.Errno) []answer {
	return []answer{
		{call: unix.SYS_CLONE, has: flag, errno: errno},
		{call: unix.SYS_UNSHARE, has: flag, errno: errno},
		{call: unix.SYS_CLONE3, any: true, has: flag, errno: errno, ask: true},
	}
}

func withoutLandlock(errno unix.Errno) []answer {
	return []answer{
		{call: unix.SYS_LANDLOCK_CREATE_RULESET, any: true, errno: errno},
		{call: unix.SYS_LANDLOCK_ADD_RULE, any: true, errno: errno},
		{call: unix.SYS_LANDLOCK_RESTRICT_SELF, any: true, errno: errno},
	}
}

func withoutFilters(errno unix.Errno) []answer {
	return []answer{
		{call: unix.SYS_SECCOMP, is: unix.SECCOMP_SET_MODE_FILTER, errno: errno},
		{call: unix.SYS_PRCTL, is: unix.PR_SET_SECCOMP, errno: unix.EINVAL},
	}
}

// struct seccomp_data (seccomp(2)): the number, the architecture, an address of 8
// bytes, six arguments of 8 bytes.
const (
	offsetNumber   = 0
	offsetArgument = 16
	wordBytes      = 4
	argumentBytes  = 8
)

// program is the filter. An ordinary call passes by all answers.
func program(answers []answer) ([]bpf.RawInstruction, error) {
	var p []bpf.Instruction
	for _, a := range answers {
		says := unix.SECCOMP_RET_ERRNO | uint32(a.errno)
		if a.ask {
			says = unix.SECCOMP_RET_USER_NOTIF
		}
		p = append(p, bpf.LoadAbsolute{Off: offsetNumber, Size: wordBytes})
		if a.any {
			p = append(p, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: a.call, SkipTrue: 1}, bpf.RetConstant{Val: says})
			continue
		}
		test := bpf.JumpIf{Cond: bpf.JumpEqual, Val: a.is, SkipFalse: 1}
		if bits.OnesCount32(a.has) > 0 {
			test = bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: a.has, SkipFalse: 1}
		}
		p = append(p,
			bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: a.call, SkipTrue: 3},
			bpf.LoadAbsolute{Off: offsetArgument + a.arg*argumentBytes, Size: wordBytes},
			test,
			bpf.RetConstant{Val: says})
	}
	return bpf.Assemble(append(p, bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW}))
}

// load puts this thread, and all that comes of it, under the filter.
func load(answers []answer, flags uintptr) (listener int, err error) {
	raw, err := program(answers)
	if err != nil {
		return -1, err
	}
	filter := make([]unix.SockFilter, 0, len(raw))
	for _, i := range raw {
		filter = append(filter, unix.SockFilter{Code: i.Op, Jt: i.Jt, Jf: i.Jf, K: i.K})
	}
	if unix.Geteuid() != 0 {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return -1, fmt.Errorf("no_new_privs: %w", err)
		}
	}
	fprog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&fprog)))
	if errno != 0 {
		return -1, fmt.Errorf("load filter: %w", errno)
	}
	return int(fd), nil
}
