package hook

import (
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"

	"carrel/protocol"
)

// TestNothingElseRunsInARealShell holds our reading of commands against bash's
// own: what rules allow because it is git and nothing else is run by a real bash,
// in which git does nothing and every other word tells. The pieces are those that
// two parsers may read in two ways.
func TestNothingElseRunsInARealShell(t *testing.T) {
	shell, err := exec.LookPath("bash")
	if err != nil {
		t.Skip(err)
	}
	pieces := []string{
		"#", "\\\n", "\n", "\r", "\r\n", "\\", "'", "\"", " ", ";", "git", "$", "`", "(", ")", "<<E\n", "\nE\n", "{", "}", "\v", "\f", "$'", "&", "|",
		"!", "<<'E'\n", "<<-E\n", "<<\\E\n", "=", "x", "[", "]", "\t", "<", "*", "~", "1", "-", "if ", "then ", "do ", "in ", "time ", ",", "\u00a0",
	}
	p := policy(t, protocol.Permissions{Allow: []string{"bash(git *)"}})
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	known := []string{"git  #&\\\nforbid", "git \\\r\nforbid &", "git \r#;forbid"} // held once to be git alone
	for tried, ran := 0, 0; tried < 20_000 && ran < 150; tried++ {
		var b strings.Builder
		b.WriteString("git ")
		for range random.IntN(5) {
			b.WriteString(pieces[random.IntN(len(pieces))])
		}
		b.WriteString("forbid")
		for range random.IntN(4) {
			b.WriteString(pieces[random.IntN(len(pieces))])
		}
		command := b.String()
		if tried < len(known) {
			command = known[tried]
		}
		if p.judge(bash(command)).decision != allow {
			continue
		}
		ran++
		const world = `PATH=/nonexistent; git(){ :; }; x(){ :; }; E(){ :; }; forbid(){ echo IT-RAN; }; eval "$1"`
		cmd := exec.CommandContext(t.Context(), shell, "--noprofile", "--norc", "-c", world, "bash", command)
		cmd.Dir, cmd.Env = t.TempDir(), []string{"LANG=C.UTF-8"}
		out, _ := cmd.Output() // most are no good commands
		if strings.Contains(string(out), "IT-RAN") {
			t.Errorf("seed %d: %q is allowed as %q, and bash runs something else", seed, command, parseScript(command).commands)
		}
	}
}
