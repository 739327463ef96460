package selftest_test

import (
	"bufio"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"carrel/internal/jail/attack"
	"carrel/internal/selftest"
)

// fewMutants is how many are tried where nobody asks for all of them, by
// CARREL_TEST_MUTANTS=all: each is a build of two programs.
const fewMutants = 3

// TestEachRuleOfTheJailIsMissedByARow takes single rules out of the jail's code,
// builds the programs without them, and the rows that are about them must break. So
// each rule has a row that looks at it, whatever else stands before the same attack.
func TestEachRuleOfTheJailIsMissedByARow(t *testing.T) {
	if name := os.Getenv(oneMutant); name != "" {
		i := slices.IndexFunc(mutants, func(m mutant) bool { return m.name == name })
		mutants[i].mustBreak(t, options(t))
		return
	}
	tree, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	_, err = os.Stat(filepath.Join(tree, "go.mod"))
	hasTree := err == nil // as an ordinary user only the built test is there
	for _, m := range mutants {
		if !hasTree {
			break
		}
		content, err := os.ReadFile(filepath.Join(tree, m.file))
		if n := strings.Count(string(content), m.rule); err != nil || n != 1 {
			t.Errorf("%s: %q stands %d times in %s (%v): the rule has changed, and so must its mutant", m.name, m.rule, n, m.file, err)
		}
		if _, err := attack.Find(m.rows); err != nil {
			t.Errorf("%s: %v", m.name, err)
		}
	}
	tried := mutants
	if os.Getenv("CARREL_TEST_MUTANTS") != "all" {
		tried = slices.Concat(mutants[:1], mutants[len(mutants)/2:len(mutants)/2+1], mutants[len(mutants)-1:])[:fewMutants]
	}
	for _, m := range tried {
		t.Run(m.name, func(t *testing.T) {
			if !hasTree {
				t.Skip("needs root: the tree is not here to be changed")
			}
			o, overlay := m.build(t, tree)
			if !m.host {
				m.mustBreak(t, o)
				return
			}
			// This very process starts the sandbox, so it is to be a mutant as well.
			t.Setenv(oneMutant, m.name)
			t.Setenv("SANDBOX_WORKER_PATH", o.Worker)
			t.Setenv("CARREL_TEST_ATTACKER", o.Attacker)
			goCommand(t, tree, "test", "-count=1", "-overlay", overlay, "-run", "^TestEachRuleOfTheJailIsMissedByARow$", "./internal/selftest")
		})
	}
	t.Logf("%d of %d mutants tried", len(tried), len(mutants))
}

// A daemon that tests itself does not serve with a worker whose filter has a hole, and
// says which row went through; with the worker as it is, it does.
func TestQuickSelfTestRefusesAWorkerWithAHole(t *testing.T) {
	tree, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(tree, "go.mod")); err != nil {
		t.Skip("needs root: the tree is not here to be changed")
	}
	good := options(t)
	bad, _ := mutants[0].build(t, tree)
	for _, c := range []struct {
		name, worker, says string
	}{
		{"whole", good.Worker, "self-test: every attack held"},
		{"with a hole", bad.Worker, "the self-test broke out of a sandbox: " + mutants[0].rows[0]},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, filepath.Join(filepath.Dir(good.Worker), "carrel"), "serve")
			cmd.Env = []string{
				"PATH=" + os.Getenv("PATH"), "SANDBOX_BASE_DIR=" + filepath.Join(t.TempDir(), "data"), "CARREL_LISTEN=127.0.0.1:0",
				"SANDBOX_SELF_TEST=quick", "SANDBOX_WORKER_PATH=" + c.worker, "SANDBOX_WARM_WORKERS=0",
			}
			cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
			stderr, err := cmd.StderrPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			said := false
			for lines := bufio.NewScanner(stderr); lines.Scan(); {
				if strings.Contains(lines.Text(), c.says) {
					said = true
					if c.worker == good.Worker { // the other ends by itself
						cancel()
					}
				} else {
					t.Log(lines.Text())
				}
			}
			if err := cmd.Wait(); !said || (c.worker == bad.Worker) != (cmd.ProcessState.ExitCode() == 1) {
				t.Errorf("said %q: %t; ended with %v", c.says, said, err)
			}
		})
	}
}

// oneMutant, set in the environment, makes this test binary one whose own half of the
// jail is that mutant.
const oneMutant = "CARREL_TEST_MUTANT"

// mustBreak tries the rows that are about the rule that is not there.
func (m *mutant) mustBreak(t *testing.T, o selftest.Options) {
	t.Helper()
	rows, err := attack.Find(m.rows)
	if err != nil {
		t.Fatal(err)
	}
	o.Rows, o.Ways = rows, []selftest.Way{selftest.Cold}
	verdicts, err := selftest.Run(t.Context(), o)
	if err != nil {
		cannot(t, err.Error())
	}
	for _, v := range verdicts {
		if v.Result != selftest.Broken {
			t.Errorf("without %q, %s is %s: %s", m.name, v.ID, v.Result, v.Detail)
		}
	}
}

// build makes both programs of a tree in which this one rule is not there, and the
// overlay of which they were made.
func (m *mutant) build(t *testing.T, tree string) (o selftest.Options, list string) {
	t.Helper()
	dir := t.TempDir()
	overlay := map[string]string{}
	path := filepath.Join(tree, m.file)
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	changed := filepath.Join(dir, "changed.go")
	if err := os.WriteFile(changed, []byte(strings.Replace(string(content), m.rule, m.without, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	overlay[path] = changed
	list = writeOverlay(t, dir, overlay)
	if strings.HasPrefix(m.file, "internal/jail/seccompgen/") {
		// The jail links what is generated from it.
		filter := filepath.Join(dir, "filter.go")
		goCommand(t, tree, "run", "-overlay", list, "./internal/jail/seccompgen", filter)
		list = writeOverlay(t, dir, map[string]string{filepath.Join(tree, "internal/jail/seccomp_filter_linux_amd64.go"): filter})
	}
	o = selftest.Options{Worker: filepath.Join(dir, "carrel-worker"), Attacker: filepath.Join(dir, "carrel-attacker")}
	goCommand(t, tree, "build", "-overlay", list, "-o", o.Worker, "./cmd/carrel-worker")
	goCommand(t, tree, "build", "-overlay", list, "-o", o.Attacker, "./internal/jail/attack/attacker")
	return o, list
}

func writeOverlay(t *testing.T, dir string, replace map[string]string) string {
	t.Helper()
	content, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func goCommand(t *testing.T, tree string, args ...string) {
	t.Helper()
	args = append(args[:1:1], append([]string{"-buildvcs=false", "-trimpath"}, args[1:]...)...)
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir = tree
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}
