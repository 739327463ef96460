package main

import (
	"context"
	"fmt"
	"io"
	"regexp"
	"strings"
	"testing"

	"carrel/internal/anthropictest"
	"carrel/internal/ordeal"
	"carrel/protocol"
)

var ownSequences = regexp.MustCompile("\r?\x1b\\[(K|\\?7[hl]|[0-9]*m)")

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
