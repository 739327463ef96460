package main

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"carrel/internal/ordeal"
	"carrel/protocol"
)

func TestFirstCtrlCCancelsTheRunAndShowsItsEnd(t *testing.T) {
	d := serve(t, t.TempDir())
	base := t.TempDir()
	for _, c := range []struct {
		name string
		args []string
	}{
		{"by a daemon", []string{"run", "--url", d.url}},
		{"in process", []string{"run"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := sitDown(t, environment(base), append(c.args, "--user", "ana", "echo going; sleep 1000")...)
			p.sees("going\n")
			p.types(ctrlC)
			status, shown := p.leaves()
			if status != 130 || !strings.HasSuffix(shown, "carrel: the run was canceled\n") {
				t.Errorf("status %d, %q", status, shown)
			}
		})
	}
	canceled(d)
	canceled(serve(t, base))
}

// canceled stops a daemon whose only run must have been canceled.
func canceled(d *daemon) {
	d.t.Helper()
	page, err := d.client.RunPage(d.t.Context(), protocol.RunQuery{})
	if err != nil || len(page.Runs) != 1 || page.Runs[0].Status != protocol.StatusCanceled {
		d.t.Errorf("%v: %+v", err, page.Runs)
	}
	d.stop()
}

// A daemon that answers nothing more is the worst that a second interrupt can meet.
func TestSecondCtrlCLeavesAtOnce(t *testing.T) {
	d := serve(t, t.TempDir())
	for _, c := range []struct{ name, command string }{{"run", "run"}, {"exec", "exec"}} {
		t.Run(c.name, func(t *testing.T) {
			args := []string{c.command, "--url", d.url, "--user", "ana"}
			if c.command == "exec" {
				args = append(args, "--", "sh", "-c")
			}
			p := sitDown(t, environment(t.TempDir()), append(args, "echo going; sleep 1000")...)
			p.sees("going\n")
			send(t, d.cmd, syscall.SIGSTOP)
			defer send(t, d.cmd, syscall.SIGCONT)
			p.types(ctrlC)
			if c.command == "run" {
				p.sees("canceling the run; once more to leave")
				p.types(ctrlC)
			}
			if status, shown := p.leaves(); status != 130 || strings.Contains(shown, "was canceled") {
				t.Errorf("status %d, %q", status, shown)
			}
		})
	}
	d.stop()
}

// Whoever reads the output may have stopped, as a pager does; the run is canceled all the
// same, and nobody has to read on to leave.
func TestInterruptsReachARunWhoseOutputNobodyReads(t *testing.T) {
	d := serve(t, t.TempDir())
	unread, stdout, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer unread.Close()
	cmd := exec.CommandContext(t.Context(), program(t), "run", "--url", d.url, "--user", "ana", "yes | head -c 300000; sleep 1000")
	cmd.Env, cmd.Stdout = environment(t.TempDir()), stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := stdout.Close(); err != nil {
		t.Fatal(err)
	}
	const size = 64 << 10 // of a pipe, pipe(7); the last page may not be full
	ordeal.Eventually(t, "the pipe is full", func() bool {
		n, err := unix.IoctlGetInt(int(unread.Fd()), unix.TIOCINQ)
		return err == nil && n > size-4<<10
	})
	send(t, cmd, syscall.SIGINT)
	ordeal.Eventually(t, "the run is canceled", func() bool {
		page, err := d.client.RunPage(t.Context(), protocol.RunQuery{Status: protocol.StatusCanceled})
		return err == nil && len(page.Runs) == 1
	})
	send(t, cmd, syscall.SIGINT)
	_ = cmd.Wait()
	if status := cmd.ProcessState.ExitCode(); status != 130 {
		t.Errorf("status %d", status)
	}
	d.stop()
}

// In process, a script that ignores the end has a grace; a second interrupt is not for
// waiting it out. Nothing is left behind, and the record says so at the next start.
func TestSecondCtrlCLeavesARunInProcess(t *testing.T) {
	base := t.TempDir()
	for _, c := range []struct {
		name string
		args []string
	}{
		{"run", []string{"run", "--user", "ana"}},
		{"exec", []string{"exec", "--user", "ana", "--", "sh", "-c"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := sitDown(t, environment(base), append(c.args, `trap "" INT TERM; echo going; while :; do sleep 1000; done`)...)
			p.sees("going\n")
			tree := ordeal.Descendants(p.cmd.Process.Pid)
			if len(tree) < 3 {
				t.Fatalf("the tree is %v", tree)
			}
			p.types(ctrlC)
			p.sees("once more to leave")
			p.types(ctrlC)
			if status, shown := p.leaves(); status != 130 || strings.Contains(shown, "was canceled") {
				t.Errorf("status %d, %q", status, shown)
			}
			ordeal.AwaitGone(t, tree)
		})
	}
	d := serve(t, base)
	page, err := d.client.RunPage(t.Context(), protocol.RunQuery{})
	if err != nil || len(page.Runs) != 1 || page.Runs[0].Status != protocol.StatusInterrupted {
		t.Errorf("%v: %+v", err, page.Runs)
	}
	d.stop()
}

func TestCtrlCEndsTheCommandOfExec(t *testing.T) {
	d := serve(t, t.TempDir())
	for _, c := range []struct {
		name string
		args []string
	}{
		{"by a daemon", []string{"exec", "--url", d.url}},
		{"in process", []string{"exec"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := sitDown(t, environment(t.TempDir()), append(c.args, "--user", "ana", "--", "sh", "-c", "echo going; sleep 1234")...)
			p.sees("going\n")
			var sleeps []int
			ordeal.Eventually(t, "the command goes", func() bool {
				sleeps = slices.DeleteFunc(append(d.tree(), ordeal.Descendants(p.cmd.Process.Pid)...), func(pid int) bool {
					args, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
					return string(args) != "sleep\x001234\x00"
				})
				return len(sleeps) > 0
			})
			p.types(ctrlC)
			if status, shown := p.leaves(); status != 130 {
				t.Errorf("status %d, %q", status, shown)
			}
			ordeal.AwaitGone(t, sleeps)
		})
	}
	d.stop()
}

func send(t *testing.T, cmd *exec.Cmd, sig syscall.Signal) {
	t.Helper()
	if err := cmd.Process.Signal(sig); err != nil {
		t.Error(err)
	}
}

// What a supervisor sends is an interrupt as well, and is answered without a terminal.
func TestSIGTERMCancelsARunThatNobodyLooksAt(t *testing.T) {
	d := serve(t, t.TempDir())
	var out, errOut ordeal.Log
	cmd := exec.CommandContext(t.Context(), program(t), "run", "--url", d.url, "--user", "ana", "echo going; sleep 1000")
	cmd.Env, cmd.Stdout, cmd.Stderr = environment(t.TempDir(), "TERM=xterm"), &out, &errOut
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ordeal.Eventually(t, "the run goes", func() bool { return out.String() == "going\n" })
	send(t, cmd, syscall.SIGTERM)
	_ = cmd.Wait()
	const told = "carrel: canceling the run; once more to leave\ncarrel: the run was canceled\n"
	if status := cmd.ProcessState.ExitCode(); status != 143 || errOut.String() != told {
		t.Errorf("status %d, %q", status, errOut.String())
	}
	d.stop()
}
