package main

import (
	"fmt"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/net/bpf"
)

// policy is one filter. A call is answered by the first of its fields that names it.
type policy struct {
	allowed    []string
	unknown    []string // ENOSYS
	restricted []seccomp.NameWithConditions
	// matched answers a restricted call whose conditions hold, in one of its rows;
	// fallback one whose conditions do not, and every call that is named nowhere.
	matched, fallback seccomp.Action
}

// struct seccomp_data (seccomp(2)).
const (
	offsetNumber = 0
	offsetArch   = 4
	wordBytes    = 4
)

// errnoENOSYS answers as a kernel that lacks the call.
const errnoENOSYS = seccomp.ActionErrno | 38

// assemble makes the program. The library's own Policy.Assemble (v1.6.0) must not
// be used: after a restricted call whose conditions do not hold it goes on to the
// next call's number with that call's argument still in the accumulator, so that
// socket(AF_XDP = 44) was taken for sendto, whose number is 44, and allowed. Here
// a number that was recognized is answered on the spot.
func assemble(p policy) ([]bpf.RawInstruction, error) {
	program := seccomp.NewProgram()
	for _, group := range []struct {
		names  []string
		action seccomp.Action
	}{{p.allowed, seccomp.ActionAllow}, {p.unknown, errnoENOSYS}} {
		if err := answer(&program, group.names, group.action); err != nil {
			return nil, err
		}
	}
	if err := restrict(&program, p); err != nil {
		return nil, err
	}
	program.Ret(p.fallback)
	body, err := program.Assemble()
	if err != nil {
		return nil, err
	}
	return bpf.Assemble(append(prelude(p.fallback), body...))
}

// prelude leaves the call's number in the accumulator. Another architecture (the
// 32-bit gate of a 64-bit kernel) has other numbers, so none of its calls gets
// through, whatever the fallback. The x32 ABI shares the architecture.
func prelude(fallback seccomp.Action) []bpf.Instruction {
	foreign := fallback
	if foreign == seccomp.ActionAllow {
		foreign = seccomp.ActionErrno
	}
	return []bpf.Instruction{
		bpf.LoadAbsolute{Off: offsetArch, Size: wordBytes},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(arch.X86_64.ID), SkipTrue: 1},
		bpf.RetConstant{Val: uint32(returned(foreign))},
		bpf.LoadAbsolute{Off: offsetNumber, Size: wordBytes},
		bpf.JumpIf{Cond: bpf.JumpGreaterOrEqual, Val: uint32(arch.X32.SeccompMask), SkipFalse: 1},
		bpf.RetConstant{Val: uint32(errnoENOSYS)},
	}
}

// returned adds the errno that the library's Ret adds: EPERM.
func returned(a seccomp.Action) seccomp.Action {
	if a == seccomp.ActionErrno {
		return a | 1
	}
	return a
}

func answer(program *seccomp.Program, names []string, action seccomp.Action) error {
	if len(names) == 0 {
		return nil
	}
	matched, next := program.NewLabel(), program.NewLabel()
	for i, name := range names {
		number, err := numberOf(name)
		switch {
		case err != nil:
			return err
		case i < len(names)-1:
			program.JmpIfTrue(bpf.JumpEqual, number, matched)
		default:
			program.JmpIf(bpf.JumpEqual, number, matched, next)
		}
	}
	program.SetLabel(matched)
	program.Ret(action)
	program.SetLabel(next)
	return nil
}

func restrict(program *seccomp.Program, p policy) error {
	var names []string // in their order
	rows := make(map[string][]seccomp.ArgumentConditions)
	for _, r := range p.restricted {
		if _, there := rows[r.Name]; !there {
			names = append(names, r.Name)
		}
		rows[r.Name] = append(rows[r.Name], r.Conditions)
	}
	for _, name := range names {
		number, err := numberOf(name)
		if err != nil {
			return err
		}
		matched, failed, next := program.NewLabel(), program.NewLabel(), program.NewLabel()
		program.JmpIfTrue(bpf.JumpNotEqual, number, next)
		// It looks at the number once more, which costs one instruction.
		seccomp.SyscallWithConditions{Num: number, Conditions: rows[name]}.Assemble(program, false, matched, failed)
		program.SetLabel(matched)
		program.Ret(p.matched)
		program.SetLabel(failed)
		program.Ret(p.fallback)
		program.SetLabel(next)
	}
	return nil
}

func numberOf(name string) (uint32, error) {
	number, ok := arch.X86_64.SyscallNames[name]
	if !ok {
		return 0, fmt.Errorf("no system call is named %q", name)
	}
	return uint32(number), nil
}
