package bench

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"carrel/internal/ordeal"
	"carrel/internal/tool"
	"carrel/protocol"
)

func get(t *testing.T, url string, into any) { t.Helper(); call(t, http.MethodGet, url, nil, into) }

// call sends a request and reads the answer into something, if it is asked for.
func call(t *testing.T, method, url string, body, into any) {
	t.Helper()
	content := []byte{}
	if body != nil {
		var err error
		if content, err = json.Marshal(body); err != nil {
			t.Error(err)
			return
		}
	}
	req, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(content))
	if err != nil {
		t.Error(err)
		return
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Prefer", "respond-async")
	resp, err := caller.Do(req)
	if err != nil {
		t.Error(err)
		return
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode >= http.StatusBadRequest {
		t.Errorf("%s %s: %s", method, url, resp.Status)
		return
	}
	if into != nil {
		if err := json.NewDecoder(resp.Body).Decode(into); err != nil {
			t.Error(err)
		}
	}
}

// begin starts a run and does not wait for it.
func (f *field) begin(user, message string) (runID string) {
	f.t.Helper()
	var begun protocol.Run
	call(f.t, http.MethodPost, f.sender.URL+"/v1/execute", protocol.ExecuteRequest{UserID: user, Message: message}, &begun)
	return begun.RunID
}

func (f *field) retire(d *ordeal.Daemon, user int) { f.t.Helper(); f.end(d, userName(user)) }

// end retires a user's sandbox.
func (f *field) end(d *ordeal.Daemon, user string) {
	f.t.Helper()
	call(f.t, http.MethodDelete, d.URL+"/v1/users/"+user+"/sandbox", nil, nil)
}

// ready waits until a daemon has its warm workers.
func (f *field) ready(d *ordeal.Daemon, warm int) {
	f.t.Helper()
	ordeal.Eventually(f.t, "the warm workers are ready", func() bool {
		var all protocol.Sandboxes
		get(f.t, d.URL+"/v1/sandboxes", &all)
		return all.Warm == warm
	})
}

// idle is what a sandbox costs that nobody uses, and what is no slower beside many.
func (f *field) idle() {
	t, n := f.t, f.size.sandboxes
	d := f.serve(fmt.Sprint("SANDBOX_MAX_WORKERS=", n+10), "SANDBOX_WARM_WORKERS=0")
	oneMore := func() []float64 {
		return f.timed(func() { run(t, d.URL, f.newUser(), "/bin/true") }, func(user int) { f.retire(d, user) })
	}
	bound := func() []float64 {
		return f.timed(func() { stream(t, d.URL, "bound", "true", nil) }, func(int) {})
	}
	oneMore() // the spawner comes with the first
	bound()
	var none, one [2][]float64
	for range f.size.rounds / 2 {
		none[0], one[0] = append(none[0], oneMore()...), append(one[0], bound()...)
	}
	started, before, alone := 0, ordeal.Measure(t), ordeal.Resident(d.Cmd.Process.Pid)
	began := time.Now()
	for _, live := range slices.Compact([]int{1, max(1, n/10), n}) {
		f.fill(d, started, live)
		started = live
		ordeal.Eventually(t, "tool hosts of idle sandboxes are let go", func() bool { return len(d.Named(tool.ModeHost)) == 0 })
		f.results.run(t, contest{
			name: fmt.Sprintf("%d idle sandboxes: each", live), unit: "MiB", rounds: 1, subjects: f.memory(d, live, before, alone),
			targets: idleTarget(live),
		})
	}
	took := time.Since(began)
	t.Logf("%d sandboxes in %s, waits for idle tool hosts included", n, took)
	for range f.size.rounds / 2 {
		none[1], one[1] = append(none[1], oneMore()...), append(one[1], bound()...)
	}
	kept := func(all []float64) func() []float64 { return func() []float64 { return all } }
	beside := fmt.Sprintf("beside %d", n)
	f.results.run(t, contest{
		name: "start of one sandbox more", unit: "ms", beside: "beside none", rounds: 1,
		subjects: []subject{{"beside none", kept(none[0])}, {beside, kept(none[1])}},
		targets:  []target{{subject: beside, beside: "beside none", at: 0.5, times: 1.3}},
	})
	f.results.run(t, contest{
		name: "first event, bound", unit: "ms", beside: "beside none", rounds: 1,
		subjects: []subject{{"beside none", kept(one[0])}, {beside, kept(one[1])}},
	})
}

// fill starts sandboxes of the users from first on, until there are that many.
func (f *field) fill(d *ordeal.Daemon, first, until int) {
	users := make(chan int)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range users {
				run(f.t, d.URL, fmt.Sprint("idle-", i), "/bin/true")
			}
		})
	}
	for i := first; i < until; i++ {
		users <- i
	}
	close(users)
	wg.Wait()
}

// memory is what the sandboxes cost beside the first, by kind; alone is what the daemon
// took before. What an ordinary user may not see it does not tell.
func (f *field) memory(d *ordeal.Daemon, sandboxes int, before ordeal.Memory, alone int64) []subject {
	kernel := ordeal.Measure(f.t).Since(before).Kernel()
	var processes int64
	for _, pid := range d.Tree() { // the spawner among them, and the first sandbox
		bytes, err := ordeal.PSS(pid)
		if err != nil && !os.IsNotExist(err) {
			f.results.LeftOut = append(f.results.LeftOut, "memory of idle sandboxes: "+err.Error())
			return nil
		}
		processes += bytes
	}
	daemon := ordeal.Resident(d.Cmd.Process.Pid) - alone
	mib := func(bytes int64) func() []float64 {
		return func() []float64 { return []float64{float64(bytes) / float64(sandboxes) / (1 << 20)} }
	}
	return []subject{
		{"all", mib(processes + kernel + daemon)},
		{"of it its processes (PSS)", mib(processes)},
		{"of it the kernel's (slab, page tables, stacks)", mib(kernel)},
		{"of it the daemon's", mib(daemon)},
	}
}

// idleTarget holds where there are enough for the machine's other work not to weigh more.
func idleTarget(live int) []target {
	if live < 1000 {
		return nil
	}
	return []target{{subject: "all", beside: "2.5 MiB", at: 0.5, times: 1, fixed: 2.5}}
}
