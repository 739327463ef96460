package main

import (
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// hostileText is what an agent would send to a terminal: the screen cleared, a line
// above written over, C1 alone, the reading order turned, a word that is not seen.
const hostileText = "a\x1b[2J\r\u009b1A\u202eb\u2066\u200b\u2028\u00adc\td\n"

// A question is only worth its answer while the text above it cannot change it.
func TestTextOfAnAgentCannotSteerATerminal(t *testing.T) {
	env := environment(t.TempDir(), "SANDBOX_WARM_WORKERS=0")
	script := "printf '" + hostileText + "'; printf '" + hostileText + "' >&2"
	for _, c := range []struct {
		name  string
		args  []string
		shown string
	}{
		{"run", []string{"run", "--user", "ana", script}, `a\u001b[2J\u000d\u009b1A\u202eb\u2066\u200b\u2028\u00adc` + "\td\n"},
		{"events", []string{"run", "--user", "ana", "--json", script}, `a\u001b[2J\r\u009b1A\u202eb\u2066\u200b\u2028\u00adc\td\n`},
		{"exec", []string{"exec", "--user", "ana", "--", "sh", "-c", script}, `a\u001b[2J\u000d\u009b1A\u202eb\u2066\u200b\u2028\u00adc` + "\td\n"},
	} {
		shown := onTerminal(t, env, c.args...)
		if !strings.Contains(shown, c.shown) {
			t.Errorf("%s: %q is shown", c.name, shown)
		}
		checkHarmless(t, shown)
		if c.name != "events" {
			continue
		}
		for line := range strings.Lines(shown) {
			if !json.Valid([]byte(line)) {
				t.Errorf("%q is no JSON", line)
			}
		}
	}
	stdout, stderr, status := command(t, env, "run", "--user", "ana", script)
	if status != 0 || stdout != hostileText || stderr != hostileText {
		t.Errorf("without a terminal status %d, %q and %q", status, stdout, stderr)
	}
}

// onTerminal runs the command line to its end, with a terminal to write to, and
// returns what the terminal got.
func onTerminal(t *testing.T, env []string, args ...string) string {
	t.Helper()
	master, terminal := openTerminal(t)
	cmd := exec.CommandContext(t.Context(), program(t), args...)
	cmd.Env = env
	cmd.Stdout, cmd.Stderr = terminal, terminal
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := terminal.Close(); err != nil { // then the program's end is the end of what is read
		t.Fatal(err)
	}
	shown, _ := io.ReadAll(master) // ends with EIO
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v: %q", err, shown)
	}
	return string(shown)
}

// openTerminal makes a pair of pseudoterminals that pass on what is written.
func openTerminal(t *testing.T) (master, terminal *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = master.Close() })
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if terminal, err = os.OpenFile("/dev/pts/"+strconv.Itoa(number), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	mode, err := unix.IoctlGetTermios(int(terminal.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	mode.Oflag &^= unix.OPOST // else every end of a line gets a carriage return
	if err := unix.IoctlSetTermios(int(terminal.Fd()), unix.TCSETS, mode); err != nil {
		t.Fatal(err)
	}
	return master, terminal
}
