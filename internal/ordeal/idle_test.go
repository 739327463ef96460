package ordeal

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"carrel/internal/tool"
	"carrel/protocol"
)

const (
	// What a sandbox that nobody uses may cost in all, and how much longer the start
	// of one more may take beside a thousand of them than beside none.
	idleTarget  = 2560 << 10 // bytes
	startTarget = 1.5
	// judgedFrom is how many sandboxes there must be for the targets to mean
	// something: below it the daemon's own memory and the clock's noise weigh more.
	judgedFrom = 500
)

// CARREL_TEST_SANDBOXES is how many live at once. From 500 on the targets are held.
func TestIdleSandboxesAreCheapAndDoNotSlowTheNextStart(t *testing.T) {
	n := number(t, "CARREL_TEST_SANDBOXES", 16)
	probes := 5 // sandboxes started to see what a start takes
	if n >= judgedFrom {
		probes = 20
	}
	d := Serve(t, t.TempDir(), fmt.Sprintf("SANDBOX_MAX_WORKERS=%d", n+probes), "SANDBOX_IDLE_TIMEOUT=1h", "SANDBOX_WARM_WORKERS=0", "CARREL_LOG_LEVEL=warn")
	h := &house{t: t, d: d}
	h.probe(probes) // the spawner comes with the first one, directories with the others
	alone := h.probe(probes)
	before := Measure(t)
	began := time.Now()
	h.fill(n)
	took := time.Since(began)
	h.allIdle(n)
	if hosts := h.count(tool.ModeHost); hosts > n {
		t.Errorf("%d sandboxes whose users come one command at a time have %d tool hosts", n, hosts)
	}
	Eventually(t, "the tool hosts of idle sandboxes are let go", func() bool { return h.count(tool.ModeHost) == 0 })
	memory, of := h.memory()
	cost := Measure(t).Since(before)
	beside := h.probe(probes)
	h.startOne("user-0000") // one at rest wakes

	t.Logf("%d idle sandboxes, %.0f started a second", n, float64(n)/took.Seconds())
	each := func(bytes int64) float64 { return mib(bytes) / float64(n) }
	t.Logf("each, in MiB: %.2f less available in all; %s", each(cost.Unavailable), of)
	t.Logf("each, in MiB, kernel's: slab %.2f, page tables %.2f, stacks %.2f, per processor %.2f, shared memory %.2f",
		each(cost.Slab), each(cost.Tables), each(cost.Stacks), each(cost.PerCPU), each(cost.Shmem))
	whole := memory + cost.Kernel()
	t.Logf("whole cost of each: %.2f MiB; the daemon itself: %.1f MiB, %d descriptors", each(whole), mib(Resident(d.Cmd.Process.Pid)), descriptors(d.Cmd.Process.Pid))
	// The least is what the machine's other work disturbs least.
	ratio := float64(beside.least) / float64(alone.least)
	t.Logf("one more, beside none and beside %d (least, median): %v %v and %v %v: %.2f times", n, alone.least, alone.median, beside.least, beside.median, ratio)
	if n >= judgedFrom && whole > idleTarget*int64(n) {
		t.Errorf("an idle sandbox costs %.2f MiB, %.2f is the most", each(whole), mib(idleTarget))
	}
	if n >= judgedFrom && ratio > startTarget {
		t.Errorf("a start takes %.2f times as long, %.1f is the most", ratio, startTarget)
	}
	d.Stop()
}

// house is a daemon with many sandboxes.
type house struct {
	t *testing.T
	d *Daemon
}

// startOne runs a first command for a user, and tells how long that took.
func (h *house) startOne(user string) time.Duration {
	began := time.Now()
	result, err := h.d.Client.Exec(h.t.Context(), user, protocol.ExecRequest{Command: protocol.Command{Args: []string{"true"}}})
	if err != nil || result.ExitCode != 0 {
		h.t.Errorf("%s: %+v, %v", user, result, err)
	}
	return time.Since(began)
}

type times struct{ least, median time.Duration }

// probe starts some sandboxes more, one after the other, and then ends them: an
// ending one would be in the next one's way.
func (h *house) probe(probes int) times {
	var took []time.Duration
	for i := range probes {
		took = append(took, h.startOne(fmt.Sprint("probe-", i)))
	}
	for i := range probes {
		h.retire(fmt.Sprint("probe-", i))
	}
	slices.Sort(took)
	return times{took[0].Round(time.Millisecond / 10), took[len(took)/2].Round(time.Millisecond / 10)}
}

func (h *house) retire(user string) {
	h.t.Helper()
	req, err := http.NewRequestWithContext(h.t.Context(), http.MethodDelete, h.d.URL+"/v1/users/"+user+"/sandbox", http.NoBody)
	if err != nil {
		h.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req) //nolint:forbidigo // a test's own request
	if err != nil {
		h.t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode >= 300 {
		h.t.Fatalf("retire %s: %s", user, resp.Status)
	}
}

func (h *house) fill(n int) {
	users := make(chan string)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for user := range users {
				h.startOne(user)
			}
		})
	}
	for i := range n {
		users <- fmt.Sprintf("user-%04d", i)
	}
	close(users)
	wg.Wait()
}

func (h *house) allIdle(n int) {
	h.t.Helper()
	live, err := h.d.Client.Sandboxes(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	idle := 0
	for _, s := range live.Sandboxes {
		if s.State == protocol.SandboxIdle && alive(s.PID) {
			idle++
		}
	}
	if idle != n {
		h.t.Fatalf("%d of %d sandboxes are live and idle", idle, n)
	}
}

// count counts the sandboxes' processes whose command line ends with a word.
func (h *house) count(word string) int { return len(h.d.Named(word)) }

// memory is what the processes of all sandboxes hold, and of which kind they are. An
// ordinary user may not see how much of it they share: it is then what is resident,
// and too much.
func (h *house) memory() (bytes int64, of string) {
	byKind := make(map[string]int64)
	count := make(map[string]int)
	unit := "PSS"
	for _, spawner := range Children(h.d.Cmd.Process.Pid) {
		for _, pid := range Descendants(spawner) {
			kind := commandLine(pid)
			size, err := PSS(pid)
			if err != nil {
				unit = "resident (PSS is closed to an ordinary user)"
				size = Resident(pid)
			}
			byKind[kind] += size
			count[kind]++
			bytes += size
		}
	}
	var parts []string
	for kind, size := range byKind {
		parts = append(parts, fmt.Sprintf("%d %q %.2f", count[kind], kind, mib(size)/float64(count[kind])))
	}
	slices.Sort(parts)
	return bytes, unit + " of " + strings.Join(parts, ", ")
}
