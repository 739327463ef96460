package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"carrel/internal/ordeal"
)

// person is a command line with somebody at its terminal: what is typed goes to it, an
// interrupt to all of its processes.
type person struct {
	t      *testing.T
	cmd    *exec.Cmd
	master *os.File
	shown  ordeal.Log
	read   chan struct{} // all that was shown is read
}

func sitDown(t *testing.T, env []string, args ...string) *person {
	t.Helper()
	cmd := exec.Command(program(t), args...) //nolint:noctx // ended by the cleanup
	cmd.Env = append(slices.Clone(env), "TERM=xterm")
	return sitDownAt(t, cmd)
}

func sitDownAt(t *testing.T, cmd *exec.Cmd) *person {
	t.Helper()
	master, terminal := openTerminal(t)
	p := &person{t: t, master: master, read: make(chan struct{}), cmd: cmd}
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = terminal, terminal, terminal
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
		<-p.read
	})
	if err := terminal.Close(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.read)
		_, _ = io.Copy(&p.shown, master) // ends with EIO, when no process has the terminal
	}()
	return p
}

func (p *person) sees(text string) {
	p.t.Helper()
	p.t.Cleanup(func() {
		if p.t.Failed() {
			p.t.Logf("on the terminal: %q", p.shown.String())
		}
	})
	ordeal.Eventually(p.t, fmt.Sprintf("%q is shown", text), func() bool { return strings.Contains(p.shown.String(), text) })
}

func (p *person) types(keys string) {
	p.t.Helper()
	if _, err := p.master.WriteString(keys); err != nil {
		p.t.Fatal(err)
	}
}

const ctrlC = "\x03"

// leaves waits for the end of the program and gives its status and all that was shown.
func (p *person) leaves() (status int, shown string) {
	_ = p.cmd.Wait()
	<-p.read
	return p.cmd.ProcessState.ExitCode(), p.shown.String()
}
