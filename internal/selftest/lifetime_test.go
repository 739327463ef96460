package selftest_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"carrel/internal/jail"
)

// orphanMaker, set in the environment, makes this test binary a daemon with a sandbox
// that waits to be killed.
const orphanMaker = "CARREL_TEST_ORPHAN_MAKER"

// TestEverythingDiesWithTheDaemon kills a daemon that cannot clean up, and watches its
// spawner and the first process of its sandbox, with which the kernel ends all others.
func TestEverythingDiesWithTheDaemon(t *testing.T) {
	if os.Getenv(orphanMaker) != "" {
		beDaemon(t)
		return
	}
	p := options(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, "-test.run=^"+t.Name()+"$", "-test.v")
	// What it leaves behind, killed, goes with this test.
	cmd.Env = append(os.Environ(), orphanMaker+"=1", "TMPDIR="+t.TempDir(), "SANDBOX_WORKER_PATH="+p.Worker, "CARREL_TEST_ATTACKER="+p.Attacker)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var said strings.Builder
	watched := make(map[int]int) // pidfds by pid
	for lines := bufio.NewScanner(out); len(watched) == 0 && lines.Scan(); {
		said.WriteString(lines.Text() + "\n")
		var spawner, first int
		if n, _ := fmt.Sscanf(lines.Text(), "sandbox %d %d", &spawner, &first); n < 2 {
			continue
		}
		for _, pid := range []int{spawner, first} {
			if watched[pid], err = unix.PidfdOpen(pid, 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	killing := cmd.Process.Kill()
	_ = cmd.Wait()
	if killing != nil || len(watched) == 0 {
		t.Fatalf("no sandbox to watch (%v): %s", killing, said.String())
	}
	for pid, fd := range watched {
		const enough = 30_000 // milliseconds; it waits for an event
		if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, enough); n != 1 {
			t.Errorf("process %d lives on (%v)", pid, err)
		}
		_ = unix.Close(fd)
	}
}

// beDaemon says which processes are the spawner's and the sandbox's and waits.
func beDaemon(t *testing.T) {
	t.Helper()
	stdin, theirs, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = theirs.Close() }()
	trial, err := jail.NewTrial(t.Context(), jail.TrialOptions{
		Worker: options(t).Worker, UserID: "orphan", Env: jail.BaseEnv("orphan", nil), Stdio: [3]*os.File{stdin, os.Stderr, os.Stderr},
	})
	if err != nil {
		t.Fatal(err)
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", trial.Child.PID))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(stat[strings.LastIndex(string(stat), ") ")+2:])) // state, ppid, … (proc_pid_stat(5))
	fmt.Printf("sandbox %s %d\n", fields[1], trial.Child.PID)
	select {}
}
