package workspace

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// churnEnv names the base directory in which TestChurn works until it is killed.
const churnEnv = "CARREL_WORKSPACE_CHURN"

// TestChurn is the process that TestKilledDaemonLeavesNothingHalfDone kills.
func TestChurn(t *testing.T) {
	base := os.Getenv(churnEnv)
	if base == "" {
		return // it is at work only in a process of its own, to be killed
	}
	d := openDirs(t, rootOptions(base))
	for i := 0; ; i++ {
		dir := openUser(t, d, fmt.Sprint("user", i%7))
		_ = os.MkdirAll(filepath.Join(dir.Path, "workspace", "a", "b", "c"), 0o755)
		must(t, dir.Close())
		if i%3 == 2 {
			must(t, d.Remove(t.Context(), fmt.Sprint("user", i%7)))
		}
		fmt.Println(i)
	}
}

func TestKilledDaemonLeavesNothingHalfDone(t *testing.T) {
	base := filepath.Join(t.TempDir(), "base")
	for round := range 8 {
		cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestChurn$")
		cmd.Env = append(os.Environ(), churnEnv+"="+base)
		out, err := cmd.StdoutPipe()
		must(t, err)
		must(t, cmd.Start())
		lines := bufio.NewScanner(out)
		for range 5 + round { // it is at work; where the kill meets it, nobody knows
			if !lines.Scan() {
				break
			}
		}
		must(t, cmd.Process.Kill())
		if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != -1 {
			t.Fatalf("it was not killed but ended: %v", err)
		}

		d := openDirs(t, rootOptions(base))
		if got := names(t, filepath.Join(base, "tmp")); got != nil {
			t.Errorf("tmp/ holds %q", got)
		}
		users, err := d.List(t.Context())
		must(t, err)
		uids := make(map[int]string)
		for _, user := range users {
			dir := makeUser(t, d, user.UserID)
			if other, taken := uids[dir.UID]; taken && d.opts.Root {
				t.Errorf("%s and %s have one uid", other, user.UserID)
			}
			uids[dir.UID] = user.UserID
		}
		must(t, d.Close())
	}
}
