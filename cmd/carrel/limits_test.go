package main

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"carrel/internal/cgroup"
	"carrel/internal/jail"
	"carrel/protocol"
)

// balloon takes memory until it is stopped: no line ever ends, so tail keeps all.
const balloon = "tail /dev/zero"

// outcome runs a script to its ending, whichever it is.
func (d *daemon) outcome(user, message string) protocol.Run {
	d.t.Helper()
	run := d.start(user, message, "")
	d.events(run.RunID, 0)
	run, err := d.client.Run(d.t.Context(), run.RunID)
	if err != nil {
		d.t.Fatal(err)
	}
	return run
}

// boundsMemory reports whether the daemon says that a sandbox's memory is bounded
// in sum.
func boundsMemory(t *testing.T, d *daemon) bool {
	t.Helper()
	system, err := d.client.System(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range system.Isolation.Layers {
		if l.Name == jail.LayerCgroup {
			return l.State == protocol.LayerOK
		}
	}
	t.Fatal("the report has no line for cgroups")
	return false
}

func TestCommandThatTakesAllMemoryEndsAloneAndSaysSo(t *testing.T) {
	d := serve(t, t.TempDir(), "SANDBOX_MEMORY_LIMIT=128MiB")
	bounded := boundsMemory(t, d)
	if os.Geteuid() == 0 && cgroup.Detect().Has(cgroup.Memory) && !bounded {
		t.Error("this host bounds memory, and the daemon does not use it")
	}
	run := d.outcome("ana", balloon)
	switch {
	case bounded && (run.Error == nil || run.Error.Code != protocol.CodeOutOfMemory || run.Error.Cause == nil || !run.Error.Cause.OOMKill):
		t.Errorf("the run is %+v", run)
	case !bounded && (run.Result == nil || *run.Result.ExitCode == 0):
		t.Errorf("the run is %+v", run)
	}
	r := d.exec("ana", balloon)
	if r.ExitCode == 0 || r.OOMKill != bounded {
		t.Errorf("the command's result is %+v", r)
	}
	if status, body := d.execute("bob", "echo well", 0); status != http.StatusOK || !strings.Contains(string(body), "well") {
		t.Errorf("the neighbour: %d %s", status, body)
	}
	if after := d.exec("ana", "echo well"); after.Stdout != "well\n" {
		t.Errorf("afterwards: %+v", after)
	}
	if runs := workerOf(d, "ana").Runs; runs != 3 {
		t.Errorf("the worker has served %d runs, want 3: it was replaced", runs)
	}
	d.stop()
}

func TestMemoryOfSeveralProcessesIsBoundedInSum(t *testing.T) {
	d := serve(t, t.TempDir(), "SANDBOX_MEMORY_LIMIT=128MiB")
	if !boundsMemory(t, d) {
		t.Log("nothing bounds it here, and the daemon says so")
		d.stop()
		return
	}
	// Each is far below the limit, all together are above. Who has his share waits
	// until all have: with a limit for each alone they would come through.
	run := d.outcome("ana", `
		for i in 1 2 3 4; do sh -c '
			x=$(head -c 41943040 /dev/zero | tr "\0" x); : > has.$0
			n=0; while [ $n -lt 300 ] && ! [ -e has.1 -a -e has.2 -a -e has.3 -a -e has.4 ]; do sleep 0.1; n=$((n+1)); [ -e lost ] && exit; done
		' $i || : > lost & done
		wait; [ -e lost ] && exit 137`)
	if run.Error == nil || run.Error.Code != protocol.CodeOutOfMemory {
		t.Errorf("four processes of 40 MiB: %+v %+v", run.Error, run.Result)
	}
	d.stop()
}

// groupsOf lists the groups that the daemon on baseDir has left in the kernel.
func groupsOf(t *testing.T, baseDir string) []string {
	t.Helper()
	name := cgroup.Name(baseDir)
	var found []string
	for _, pattern := range []string{"/sys/fs/cgroup/*/", "/sys/fs/cgroup/", "/sys/fs/cgroup/*/*/"} {
		matches, err := filepath.Glob(pattern + name)
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, matches...)
	}
	return found
}

func TestGroupsOfSandboxesAreGoneWithThem(t *testing.T) {
	base := filepath.Join(t.TempDir(), "data")
	d := serve(t, base)
	d.exec("ana", "true")
	if boundsMemory(t, d) && len(groupsOf(t, base)) == 0 {
		t.Error("there is no group while the daemon runs")
	}
	d.stop()
	if left := groupsOf(t, base); len(left) > 0 {
		t.Errorf("the daemon has left %q", left)
	}

	d = serve(t, base)
	d.exec("ana", "true")
	if err := d.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = d.cmd.Wait()
	d = serve(t, base) // and ends what the killed one left
	d.exec("ana", "true")
	d.stop()
	if left := groupsOf(t, base); len(left) > 0 {
		t.Errorf("a killed daemon's successor has left %q", left)
	}
}
