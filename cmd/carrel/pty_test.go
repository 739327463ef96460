package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"carrel/internal/anthropictest"
	"carrel/internal/ordeal"
	"carrel/protocol"
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

var ownSequences = regexp.MustCompile("\r?\x1b\\[(K|\\?7[hl]|[0-9]*m)")

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

// The model's words, a call that waits, one that fails: on a terminal and elsewhere.
func TestProgressIsForTerminalsAndCallsAreFolded(t *testing.T) {
	const wait = "echo first; echo second; until [ -e go ]; do sleep 0.02; done; echo third; true the end"
	work := step{
		message: "work", answer: "Done.",
		calls:   []anthropictest.Block{bash("t1", wait), call("t2", "read", map[string]any{"path": "nowhere"})},
		results: []string{"third", "!nowhere"},
	}
	script := turns(work, work, work, work)
	for i := range script {
		if blocks := script[i].Reply.Blocks; len(blocks) > 1 {
			script[i].Reply.Blocks = append([]anthropictest.Block{anthropictest.Text("I will ", "look.")}, blocks...)
		}
	}
	s := play(t, script)
	release := func(user string) {
		t.Helper()
		if _, err := s.client.PutFile(t.Context(), user, "go", strings.NewReader(""), 0); err != nil {
			t.Fatal(err)
		}
	}
	folded := regexp.MustCompile(`(?m)^\[bash ok [0-9.]+s\] ` + regexp.QuoteMeta(wait[:maxBrief]))
	failed := regexp.MustCompile(`(?m)^\[read failed [0-9.]+s\] nowhere: .*nowhere`)
	check := func(t *testing.T, shown string, isVerbose bool) {
		t.Helper()
		if !folded.MatchString(shown) || !failed.MatchString(shown) && !isVerbose {
			t.Errorf("the calls are not shown as they should be: %q", shown)
		}
		if strings.Contains(shown, "second\n  third\n") != isVerbose {
			t.Errorf("the output of a call: %q", shown)
		}
		if !strings.HasPrefix(shown, "I will look.\n") || !strings.HasSuffix(shown, "Done.\n") {
			t.Errorf("the words of the model: %q", shown)
		}
	}
	for i, c := range []struct {
		name   string
		args   []string
		env    []string
		colour bool
	}{
		{"terminal", nil, nil, true},
		{"terminal without colours", nil, []string{"NO_COLOR=1"}, false},
		{"unfolded", []string{"--verbose"}, nil, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			user := fmt.Sprint("user", i)
			p := sitDown(t, environment(t.TempDir(), c.env...), append([]string{"run", "--url", s.url, "--user", user, "work"}, c.args...)...)
			p.sees("| second") // the line of progress has the last line of output
			release(user)
			status, shown := p.leaves()
			if status != 0 || strings.Contains(shown, "\x1b[2m") != c.colour || strings.Contains(shown, "\x1b[31m") != c.colour {
				t.Errorf("status %d, %q", status, shown)
			}
			check(t, screenOf(shown), len(c.args) > 0)
		})
	}
	t.Run("no terminal", func(t *testing.T) {
		release("plain")
		stdout, stderr, status := command(t, environment(t.TempDir(), "TERM=xterm"), "run", "--url", s.url, "--user", "plain", "work")
		if status != 0 || stdout != "I will look.Done.\n" || strings.ContainsAny(stderr, "\x1b\r") || !folded.MatchString(stderr) || !failed.MatchString(stderr) {
			t.Errorf("status %d, %q, %q", status, stdout, stderr)
		}
	})
	s.stop()
}

// screenOf is what is left on a terminal that was sent text: lines of progress are gone.
func screenOf(text string) string {
	var lines []string
	for line := range strings.SplitSeq(text, "\n") {
		if i := strings.LastIndex(line, eraseLine); i >= 0 {
			line = line[i:]
		}
		lines = append(lines, ownSequences.ReplaceAllString(line, ""))
	}
	return strings.Join(lines, "\n")
}

func TestWaitingRunShowsItsPlaceInTheQueue(t *testing.T) {
	d := serve(t, t.TempDir(), "SANDBOX_MAX_WORKERS=1", "SANDBOX_WARM_WORKERS=0")
	going := d.start("bob", "echo going; sleep 1000", "going")
	p := sitDown(t, environment(t.TempDir()), "run", "--url", d.url, "--user", "ana", "echo hi")
	p.sees("queued, place 1")
	if _, err := d.client.Cancel(t.Context(), going.RunID); err != nil {
		t.Fatal(err)
	}
	if status, shown := p.leaves(); status != 0 || screenOf(shown) != "hi\n" {
		t.Errorf("status %d, %q", status, shown)
	}
	d.stop()
}

// The names and inputs of tools are a worker's words, and the line of progress shows them.
func TestLineOfProgressIsHarmless(t *testing.T) {
	master, terminal := openTerminal(t)
	t.Setenv("TERM", "xterm")
	t.Setenv("NO_COLOR", "1")
	screen := newScreen(&output{stdout: terminal, stderr: terminal}, false)
	told := &teller{screen: screen}
	for _, ev := range []protocol.Event{
		{Type: protocol.EventToolCallStart, Data: mustJSON(protocol.ToolCallStart{ID: "t", Name: hostileText})},
		{Type: protocol.EventToolCallArgs, Data: mustJSON(protocol.ToolCallArgs{ID: "t", Delta: strings.Repeat(hostileText, 100)})},
		{Type: protocol.EventToolOutput, Data: mustJSON(protocol.ToolOutput{ID: "t", Text: hostileText + hostileText})},
	} {
		if err := told.show(ev); err != nil {
			t.Fatal(err)
		}
	}
	var shown ordeal.Log
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer cancel()
		_, _ = io.Copy(&shown, master)
	}()
	ordeal.Eventually(t, "a line is drawn", func() bool { return strings.Contains(shown.String(), wrapOn) })
	screen.close()
	if err := terminal.Close(); err != nil {
		t.Fatal(err)
	}
	<-ctx.Done()
	text := shown.String()
	if !strings.Contains(text, `\u001b[2J`) || !strings.HasSuffix(text, eraseLine) {
		t.Errorf("%q", text)
	}
	checkHarmless(t, ownSequences.ReplaceAllString(text, ""))
}

func TestPersonAtTheTerminalAllowsATool(t *testing.T) {
	s := play(t, turns(removal("grant", "!No such file", "Gone.")), permissions(t, askForRemoval))
	p := sitDown(t, environment(t.TempDir()), "run", "--url", s.url, "--user", "ana", "grant")
	p.sees("allow? [y/N] ")
	p.types("y\n")
	status, shown := p.leaves()
	for _, want := range []string{"bash wants to run:\n", "\n[allow]", "\n[bash failed "} {
		if !strings.Contains(screenOf(shown), want) {
			t.Errorf("%q lacks %q", screenOf(shown), want)
		}
	}
	if status != 0 || !strings.HasSuffix(screenOf(shown), "\nGone.\n") {
		t.Errorf("status %d, %q", status, shown)
	}
	s.stop()
}
