package ordeal

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"carrel/client"
	"carrel/internal/jail"
	"carrel/internal/jail/attack"
	"carrel/protocol"
)

// bomb is a run that takes whatever it can get.
type bomb struct {
	name    string
	message string
	seconds float64 // until its time is up
	// How it may end: the command meets the limit, tells so in its own words and
	// exits, or the run ends in an error of its own.
	exits []int
	codes []protocol.Code
	// check looks at the result of one that finished; nil = its exit status says all.
	check func(protocol.Result) error
}

const (
	bombMemory = 128 << 20
	bombDisk   = 64 << 20
)

// bombs depend on what this host's isolation bounds.
func bombs(t *testing.T, layers map[string]protocol.LayerState) []bomb {
	line := int64(number(t, "CARREL_TEST_LINE", 64<<20))
	exhaust := "./attacker " + attack.ModeExhaust + " "
	memory := bomb{
		name: "memory balloon", message: exhaust + attack.Memory, seconds: 20,
		exits: []int{2, 137}, // Go's own "out of memory", where RLIMIT_DATA bounds a process; SIGKILL
	}
	if layers[jail.LayerCgroup] != protocol.LayerMissing {
		memory.codes = []protocol.Code{protocol.CodeOutOfMemory}
	}
	// Twice the quota. Where nothing counts, it has to end by itself.
	workspace := bomb{
		name:    "full workspace",
		message: fmt.Sprintf("i=0; while [ $i -lt %d ] && head -c %d /dev/zero > fill$i; do i=$((i+1)); done; [ $i = %[1]d ]; s=$?; rm -f fill*; exit $s", 8, bombDisk/4),
		seconds: 20,
	}
	if layers[jail.LayerQuota] == protocol.LayerMissing {
		workspace.exits = []int{0}
	} else {
		workspace.message = "while :; do i=0; while [ $i -lt 8 ]; do head -c 16777216 /dev/zero > fill$i || exit 1; i=$((i+1)); done; done"
		workspace.exits, workspace.codes = []int{1, 2}, []protocol.Code{protocol.CodeDiskQuotaExceeded}
	}
	return []bomb{
		{
			name: "forks", message: "b() { b | b & }; b; while :; do sleep 1; done", seconds: 1,
			exits: []int{0, 2}, codes: []protocol.Code{protocol.CodeRunTimeout}, // the shell may give up by itself
		},
		{name: "threads", message: exhaust + attack.Threads, seconds: 20, exits: []int{2}},
		{name: "descriptors", message: exhaust + attack.Descriptors, seconds: 20, exits: []int{1}},
		memory,
		{
			name: "output in one line", message: fmt.Sprintf(`head -c %d /dev/zero | tr '\0' x`, line), seconds: 300, exits: []int{0},
			check: func(r protocol.Result) error {
				if !r.Truncated || r.ContentBytes != line || len(r.Content) > 1<<20 {
					return fmt.Errorf("of %d bytes it tells %d, truncated: %v, and gives %d", line, r.ContentBytes, r.Truncated, len(r.Content))
				}
				return nil
			},
		},
		{
			name: "full /tmp", message: "i=0; while head -c 16777216 /dev/zero > /tmp/fill$i; do i=$((i+1)); done; rm /tmp/fill*; exit 1",
			seconds: 60, exits: []int{1},
		},
		workspace,
		{name: "SIGSTOP of itself", message: "kill -STOP $$", seconds: 0.2, codes: []protocol.Code{protocol.CodeRunTimeout}},
		{name: "SIGTERM ignored", message: "trap '' TERM; while :; do sleep 1; done", seconds: 0.2, codes: []protocol.Code{protocol.CodeRunTimeout}},
		{
			name: "double-forked daemons", message: "for i in 1 2 3 4 5 6 7 8; do (setsid sh -c '(trap \"\" TERM HUP; while :; do sleep 1; done) & (setsid sleep 1000 &)' &); done",
			seconds: 20, exits: []int{0},
		},
	}
}

// CARREL_TEST_NEIGHBOUR is how many times its quiet latency the neighbour's may be
// while a bomb goes off; without it the figure is only printed, since a machine that
// also does other things has no quiet. CARREL_TEST_LINE is how many bytes of output
// come in one line.
func TestBombsHarmNeitherNeighbourNorDaemon(t *testing.T) {
	base := t.TempDir()
	d := Serve(t, base, "SANDBOX_PIDS_LIMIT=128", fmt.Sprintf("SANDBOX_MEMORY_LIMIT=%d", bombMemory),
		fmt.Sprintf("SANDBOX_DISK_QUOTA=%d", bombDisk), "SANDBOX_WARM_WORKERS=0", "CARREL_LOG_LEVEL=warn")
	system, err := d.Client.System(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	layers := make(map[string]protocol.LayerState)
	for _, l := range system.Isolation.Layers {
		layers[l.Name] = l.State
	}
	well(t, d) // its directory is there now
	place(t, base, Program(t, "carrel-attacker"))
	n := newNeighbour(t, d)
	quiet := n.during(t, func() { n.answers(t, 30) })
	most := number(t, "CARREL_TEST_NEIGHBOUR", 0)
	for _, b := range bombs(t, layers) {
		t.Run(b.name, func(t *testing.T) {
			well(t, d)
			before := holding(d)
			var how string
			// One that is over at once goes off again: one answer is no median.
			during := n.during(t, func() {
				for enough := n.count() + 10; how == "" || n.count() < enough; {
					how = b.goOff(t, d)
				}
			})
			ratio := float64(during) / float64(quiet)
			t.Logf("%s; the neighbour's median: %v, quiet %v: %.1f times", how, during, quiet, ratio)
			if most > 0 && ratio > float64(most) {
				t.Errorf("the neighbour waits %.1f times as long as when it is quiet", ratio)
			}
			well(t, d)
			Eventually(t, fmt.Sprintf("the daemon holds what it held before, %+v", before), func() bool { return holding(d).within(before) })
		})
	}
	n.leave()
	d.Stop()
}

const bomber = "bomber"

// well has the bomber run something harmless: what the bomb did is over.
func well(t *testing.T, d *Daemon) {
	t.Helper()
	r, err := d.Client.Exec(t.Context(), bomber, protocol.ExecRequest{Command: protocol.Command{Shell: "ls /proc | grep -c '^[0-9]'; rm -rf /tmp/* fill*"}})
	if err != nil || r.ExitCode != 0 || len(r.Stdout) != 2 { // fewer than ten: the command itself
		t.Fatalf("the bomber's sandbox is not well: %+v, %v", r, err)
	}
}

// place puts a program into the bomber's workspace, as its own agent might.
func place(t *testing.T, base, program string) {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(base, "users", bomber+"-*", "workspace"))
	if err != nil || len(found) != 1 {
		t.Fatalf("the bomber's workspace: %v, %v", found, err)
	}
	from, err := os.Open(program)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = from.Close() }()
	to, err := os.OpenFile(filepath.Join(found[0], "attacker"), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(to, from); err != nil {
		t.Fatal(err)
	}
	if err := to.Close(); err != nil {
		t.Fatal(err)
	}
}

// goOff runs the bomb to its ending and tells how that was.
func (b *bomb) goOff(t *testing.T, d *Daemon) string {
	t.Helper()
	began := time.Now()
	run, err := d.Client.Execute(t.Context(), protocol.ExecuteRequest{
		UserID: bomber, Message: b.message, Config: protocol.RunConfig{TimeoutSeconds: b.seconds},
	}, client.ExecuteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var last protocol.Event
	for ev, err := range d.Client.Events(t.Context(), run.RunID, 0) {
		if err != nil {
			t.Fatal(err)
		}
		last = ev
	}
	return b.judge(t, last) + " after " + time.Since(began).Round(time.Millisecond).String()
}

func (b *bomb) judge(t *testing.T, last protocol.Event) string {
	t.Helper()
	if last.Type == protocol.EventRunError {
		var e protocol.RunError
		if err := json.Unmarshal(last.Data, &e); err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(b.codes, e.Code) {
			t.Errorf("it ends in %+v", e)
		}
		return string(e.Code) + ": " + e.Message
	}
	var r protocol.Result
	if err := json.Unmarshal(last.Data, &r); err != nil || r.ExitCode == nil {
		t.Fatalf("it ends in %s, %v", last.Data, err)
	}
	if !slices.Contains(b.exits, *r.ExitCode) {
		t.Errorf("it exits with %d: %.500s", *r.ExitCode, r.Content)
	}
	if b.check != nil {
		if err := b.check(r); err != nil {
			t.Error(err)
		}
	}
	return fmt.Sprintf("exit status %d", *r.ExitCode)
}
