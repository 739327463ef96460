package main

import (
	"bytes"
	"encoding/binary"
	"os"
	"slices"
	"testing"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

func TestFilterFileIsUpToDate(t *testing.T) {
	want, err := generate()
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("../seccomp_filter_linux_amd64.go")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("it is not: run go generate ./internal/jail")
	}
}

// machine runs an assembled policy.
type machine struct{ vm *bpf.VM }

func load(t *testing.T, p policy) machine {
	t.Helper()
	raw, err := assemble(p)
	if err != nil {
		t.Fatal(err)
	}
	program, ok := bpf.Disassemble(raw)
	if !ok {
		t.Fatal("the program has instructions of no known kind")
	}
	vm, err := bpf.NewVM(program)
	if err != nil {
		t.Fatal(err)
	}
	return machine{vm}
}

// run answers a call. The virtual machine loads words in network order, so each
// stands in it that way, and a 64-bit argument with its low word first.
func (m machine) run(architecture, number uint32, args [6]uint64) uint32 {
	b := make([]byte, 64)
	binary.BigEndian.PutUint32(b[offsetNumber:], number)
	binary.BigEndian.PutUint32(b[offsetArch:], architecture)
	for i, a := range args {
		binary.BigEndian.PutUint32(b[16+8*i:], uint32(a))
		binary.BigEndian.PutUint32(b[20+8*i:], uint32(a>>32))
	}
	verdict, err := m.vm.Run(b)
	if err != nil {
		panic(err)
	}
	return uint32(verdict)
}

// model answers a call by reading the policy.
func model(p policy, number uint32, args [6]uint64) uint32 {
	name := arch.X86_64.SyscallNumbers[int(number)]
	switch {
	case number >= uint32(arch.X32.SeccompMask), slices.Contains(p.unknown, name):
		return uint32(errnoENOSYS)
	case slices.Contains(p.allowed, name):
		return uint32(seccomp.ActionAllow)
	}
	for _, r := range p.restricted {
		if r.Name == name && !slices.ContainsFunc(r.Conditions, func(c seccomp.Condition) bool { return !holds(c, args) }) {
			return uint32(returned(p.matched))
		}
	}
	return uint32(returned(p.fallback))
}

func holds(c seccomp.Condition, args [6]uint64) bool {
	a := args[c.Argument]
	switch c.Operation {
	case seccomp.Equal:
		return a == c.Value
	case seccomp.NotEqual:
		return a != c.Value
	case seccomp.LessOrEqual:
		return a <= c.Value
	case seccomp.GreaterOrEqual:
		return a >= c.Value
	case seccomp.BitsNotSet:
		return a&c.Value == 0
	default:
		panic("an operation that no row uses: " + c.Operation)
	}
}

// TestFilterAnswersAsItsPolicyReads is the regression of a hole: the assembler of
// the library took an argument of one call for the number of the next.
func TestFilterAnswersAsItsPolicyReads(t *testing.T) {
	for _, tt := range []struct {
		name   string
		policy policy
	}{{"base", basePolicy()}, {"tool", toolPolicy()}} {
		t.Run(tt.name, func(t *testing.T) {
			m := load(t, tt.policy)
			numbers := rapid.OneOf(rapid.Uint32Range(0, 600), rapid.SampledFrom(restrictedNumbers(t)), rapid.Uint32())
			// Arguments that are calls' numbers, or that the rows name, are where
			// it would go wrong.
			argument := rapid.OneOf(rapid.Uint64Range(0, 600), rapid.Uint64(), rapid.SampledFrom(namedValues()))
			rapid.Check(t, func(t *rapid.T) {
				number := numbers.Draw(t, "number")
				var args [6]uint64
				for i := range args {
					args[i] = argument.Draw(t, "argument")
				}
				if got, want := m.run(uint32(arch.X86_64.ID), number, args), model(tt.policy, number, args); got != want {
					t.Fatalf("call %d with %#x: %#x, want %#x", number, args, got, want)
				}
			})
		})
	}
}

func restrictedNumbers(t *testing.T) []uint32 {
	t.Helper()
	var numbers []uint32
	for _, r := range append(slices.Clone(restricted), toolDenied...) {
		n, err := numberOf(r.Name)
		if err != nil {
			t.Fatal(err)
		}
		numbers = append(numbers, n)
	}
	return numbers
}

func namedValues() []uint64 {
	var values []uint64
	for _, r := range append(slices.Clone(restricted), toolDenied...) {
		for _, c := range r.Conditions {
			values = append(values, c.Value, c.Value+1, c.Value-1, c.Value|0xdeadbeef<<32)
		}
	}
	return values
}

// TestEverySocketThatMayBeMade goes through all families and protocols there are:
// what is not in the list is refused.
func TestEverySocketThatMayBeMade(t *testing.T) {
	type kind struct{ family, protocol uint64 }
	want := []kind{
		{unix.AF_UNIX, 0},
		{unix.AF_NETLINK, unix.NETLINK_ROUTE},
		{unix.AF_INET, 0},
		{unix.AF_INET, unix.IPPROTO_TCP},
		{unix.AF_INET, unix.IPPROTO_UDP},
		{unix.AF_INET6, 0},
		{unix.AF_INET6, unix.IPPROTO_TCP},
		{unix.AF_INET6, unix.IPPROTO_UDP},
	}
	m := load(t, basePolicy())
	for family := range uint64(512) {
		for protocol := range uint64(512) {
			for _, high := range []uint64{0, 1 << 32} {
				args := [6]uint64{family | high, unix.SOCK_STREAM, protocol}
				allowed := m.run(uint32(arch.X86_64.ID), unix.SYS_SOCKET, args) == uint32(seccomp.ActionAllow)
				if wanted := high == 0 && slices.Contains(want, kind{family, protocol}); allowed != wanted {
					t.Errorf("socket(%d, SOCK_STREAM, %d): allowed %v, want %v", args[0], protocol, allowed, wanted)
				}
			}
		}
	}
}

func TestSocketTypesThatStandForOtherProtocolsAreRefused(t *testing.T) {
	m := load(t, basePolicy())
	for kind, want := range map[uint64]bool{
		unix.SOCK_STREAM: true, unix.SOCK_DGRAM | unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK: true,
		unix.SOCK_RDM: false, unix.SOCK_SEQPACKET: false, unix.SOCK_DCCP: false, unix.SOCK_PACKET: false,
		unix.SOCK_SEQPACKET | unix.SOCK_CLOEXEC: false,
	} {
		got := m.run(uint32(arch.X86_64.ID), unix.SYS_SOCKET, [6]uint64{unix.AF_INET, kind, 0}) == uint32(seccomp.ActionAllow)
		if got != want {
			t.Errorf("socket(AF_INET, %#x, 0): allowed %v, want %v", kind, got, want)
		}
	}
}

func TestForeignABIsGetNoCallThrough(t *testing.T) {
	for _, p := range []policy{basePolicy(), toolPolicy()} {
		m := load(t, p)
		for number := range uint32(600) {
			if got := m.run(uint32(arch.I386.ID), number, [6]uint64{}); got == uint32(seccomp.ActionAllow) {
				t.Errorf("i386 call %d is allowed", number)
			}
			if got := m.run(uint32(arch.X86_64.ID), number|uint32(arch.X32.SeccompMask), [6]uint64{}); got == uint32(seccomp.ActionAllow) {
				t.Errorf("x32 call %d is allowed", number)
			}
		}
	}
}

func TestNoCallIsNamedInTwoLists(t *testing.T) {
	seen := make(map[string]bool)
	names := slices.Concat(allowed, unknown)
	for i, r := range restricted {
		if i == 0 || restricted[i-1].Name != r.Name {
			names = append(names, r.Name)
		}
	}
	for _, name := range names {
		if seen[name] {
			t.Errorf("%s is named twice: only the first counts", name)
		}
		seen[name] = true
	}
}
