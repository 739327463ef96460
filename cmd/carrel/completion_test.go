package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCompleteTellsHowACommandLineGoesOn(t *testing.T) {
	parser, err := newParser(&cli{}, &output{}, "ana", func(int) {})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		words []string
		want  []string
	}{
		{"nothing", nil, nil},
		{"commands", []string{"ru"}, []string{"run"}},
		{"commands of a command", []string{"files", ""}, []string{"ls", "get", "put", "rm"}},
		{"a hidden command", []string{"complet"}, []string{"completion"}},
		{"flags, those of carrel too", []string{"key", "add", "--"}, []string{"--help", "--config", "--set", "--file", "--role", "--user"}},
		{"a flag that is begun", []string{"logs", "--fo"}, []string{"--follow"}},
		{"values of a flag", []string{"key", "add", "--role", ""}, []string{"admin", "user"}},
		{"values with the flag", []string{"key", "add", "--role=u"}, []string{"--role=user"}},
		{"no value with the flag yet", []string{"key", "add", "--role="}, []string{"--role=admin", "--role=user"}},
		{"values of an argument", []string{"completion", "z"}, []string{"zsh"}},
		{"configuration keys", []string{"--set", "CARREL_LOG_"}, []string{"CARREL_LOG_LEVEL=", "CARREL_LOG_FORMAT="}},
		{"a flag's file", []string{"--config", "x"}, []string{files}},
		{"a flag's file with the flag", []string{"--config=x"}, []string{files}},
		{"an argument's file", []string{"files", "put", "--user", "ana", ""}, []string{files}},
		{"behind a flag without a value", []string{"logs", "--follow", ""}, nil},
		{"behind a short flag", []string{"logs", "-f", "--js"}, []string{"--json"}},
		{"a user's name is nobody's to know", []string{"run", "--user", ""}, nil},
		{"a message", []string{"run", ""}, nil},
		{"a command of the sandbox", []string{"exec", "ls", "--"}, nil},
		{"a command of the sandbox after --", []string{"exec", "--user", "ana", "--", ""}, nil},
		{"help", []string{"help", "fi"}, []string{"files"}},
		{"help of a part", []string{"help", "files", "g"}, []string{"get"}},
		{"a flag that is not there", []string{"run", "--nope", ""}, nil},
		{"a value for a flag that takes none", []string{"run", "--json="}, nil},
		{"a command that is not there", []string{"nope", ""}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			for _, found := range candidates(parser.Model.Node, c.words) {
				got = append(got, found.word)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// The real shells, with somebody at the terminal who presses the tab key.
func TestShellsCompleteTheCommandLine(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "plan of ana.csv"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	env := []string{"PATH=" + filepath.Dir(program(t)) + ":" + os.Getenv("PATH"), "HOME=" + dir, "LC_ALL=C.UTF-8", "TERM=dumb"}
	for _, shell := range []struct {
		name  string
		args  []string
		begin string
	}{
		{"bash", []string{"--norc", "--noprofile", "-i"}, "source <(carrel completion bash)"},
		{"zsh", []string{"-f", "-i"}, "autoload -U compinit && compinit -u -D; source <(carrel completion zsh)"},
	} {
		t.Run(shell.name, func(t *testing.T) {
			cmd := shellCommand(t, env, shell.name, shell.args...)
			cmd.Dir = dir
			p := sitDownAt(t, cmd)
			p.types(shell.begin + "; echo rea''dy\r")
			p.sees("ready")
			for _, c := range []struct{ typed, seen string }{
				{"carrel ver\t\r", "go1."},
				{"carrel completion f\t\r", "# fish completion for carrel"},
				{"carrel --set CARREL_LOG_F\ttext vers\t| tr g G\r", "Go1."},
				{"carrel key add --role=ad\t--file=/dev/full no:ne\r", "name: must be 1 to 64"},
				{"carrel files put --url=http://127.0.0.1:1 pl\t\r", "plan%20of%20ana.csv"},
			} {
				p.types(c.typed)
				p.sees(c.seen)
			}
			p.types("exit\r")
			p.leaves()
		})
	}
}

func TestFishCompletesTheCommandLine(t *testing.T) {
	dir := t.TempDir()
	env := []string{"PATH=" + filepath.Dir(program(t)) + ":" + os.Getenv("PATH"), "HOME=" + dir}
	if err := os.WriteFile(filepath.Join(dir, "plan.csv"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string][]string{
		"carrel ru":               {"run"},
		"carrel files g":          {"get"},
		"carrel key add --role ":  {"admin", "user"},
		"carrel key add --role=u": {"--role=user"},
		"carrel files put pla":    {"plan.csv"},
		"carrel exec -- l":        nil,
	} {
		cmd := shellCommand(t, env, "fish", "--no-config", "-c", "source (carrel completion fish | psub); complete -C '"+line+"'")
		cmd.Dir = dir
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for line := range strings.Lines(string(out)) {
			word, _, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
			got = append(got, word)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
}

// shellCommand is a shell, which not every machine has.
func shellCommand(t *testing.T, env []string, name string, args ...string) *exec.Cmd {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("there is no %s here", name)
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Env = env
	return cmd
}
