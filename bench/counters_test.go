package bench

import (
	"bufio"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"carrel/internal/ordeal"
)

const countersFile = "testdata/counters.json"

// worse is how much more than the kept counter is a regression.
const worse = 1.10

// TestCountersOfTheDaemonHaveNotGrown counts what the daemon does for a run, an exec and
// a streamed event: objects and bytes that it allocates, system calls that read and
// write. Unlike times they are the same on every machine, give or take a few in a
// hundred, so they may fail a build: where the least of three countings has grown, since
// a machine that is busy with else makes smaller batches. CARREL_UPDATE=1 keeps new ones,
// for a change that is worth what it costs, or that has made them better.
func TestCountersOfTheDaemonHaveNotGrown(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: a daemon's count of system calls is closed to others")
	}
	f := newDaemons(t)
	got := f.count()
	if os.Getenv("CARREL_UPDATE") == "1" {
		keepCounters(t, got)
		return
	}
	content, err := os.ReadFile(countersFile)
	if err != nil {
		t.Fatal(err)
	}
	var kept map[string]float64
	if err := json.Unmarshal(content, &kept); err != nil {
		t.Fatal(err)
	}
	if len(kept) != len(got) {
		t.Errorf("%s has %d counters, there are %d: CARREL_UPDATE=1 go test ./bench -run Counters", countersFile, len(kept), len(got))
	}
	hasGrown := func(name string) bool { return got[name] > kept[name]*worse } // a new one is kept as 0
	for range 2 {
		if slices.ContainsFunc(slices.Collect(maps.Keys(got)), hasGrown) {
			got = least(got, f.count())
		}
	}
	for _, name := range slices.Sorted(maps.Keys(got)) {
		if hasGrown(name) {
			t.Errorf("%s: %.1f, and %.1f is kept", name, got[name], kept[name])
		} else {
			t.Logf("%s: %.1f, kept %.1f", name, got[name], kept[name])
		}
	}
}

// least has the smallest of each counter.
func least(one, other map[string]float64) map[string]float64 {
	for name, n := range other {
		one[name] = min(one[name], n)
	}
	return one
}

// count counts all there is to count, once.
func (f *field) count() map[string]float64 {
	t := f.t
	t.Helper()
	got := map[string]float64{}
	count := func(name string, times int, d *ordeal.Daemon, do func()) {
		for range min(times, 100) {
			do() // the worker is started, and what is made once is made: buckets of histograms, too
		}
		first, before := counters(t, d), counters(t, d)
		for range times {
			do()
		}
		for what, n := range counters(t, d) {
			looking := before[what] - first[what] // what it costs to be asked
			got[name+": "+what] = (n - before[what] - looking) / float64(times)
		}
	}
	count("run of a bound user", 300, f.cold, func() { stream(t, f.cold.URL, "bound", "true", nil) })
	count("exec of a bound user", 300, f.cold, func() { run(t, f.cold.URL, "bound", "/bin/true") })
	count("cold start and exec", 40, f.cold, func() { run(t, f.cold.URL, "cold", "/bin/true"); f.end(f.cold, "cold") })
	const events = 20_000
	streamed := "20000 streamed events"
	count(streamed, 3, f.sender, func() { stream(t, f.sender.URL, "bound", order(events, 0), nil) })
	for _, what := range []string{"reads", "writes"} { // as many events each as have come meanwhile: the machine's
		delete(got, streamed+": "+what)
	}
	return got
}

// counters are a daemon's so far.
func counters(t *testing.T, d *ordeal.Daemon) map[string]float64 {
	t.Helper()
	file, err := os.Open(fmt.Sprintf("/proc/%d/io", d.Cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	all := pick(t, bufio.NewScanner(file), map[string]string{"syscr:": "reads", "syscw:": "writes"})
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, d.URL+"/metrics", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := caller.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	maps.Copy(all, pick(t, bufio.NewScanner(resp.Body), map[string]string{
		"go_memstats_mallocs_total": "objects", "go_memstats_alloc_bytes_total": "bytes",
	}))
	if len(all) != 4 {
		t.Fatalf("counters: %v", all)
	}
	return all
}

// pick reads the numbers behind these words, and gives them their names.
func pick(t *testing.T, lines *bufio.Scanner, names map[string]string) map[string]float64 {
	t.Helper()
	found := make(map[string]float64)
	for lines.Scan() {
		word, number, ok := strings.Cut(lines.Text(), " ")
		if name := names[word]; ok && name != "" {
			n, err := strconv.ParseFloat(number, 64)
			if err != nil {
				t.Fatal(err)
			}
			found[name] = n
		}
	}
	return found
}

func keepCounters(t *testing.T, got map[string]float64) {
	t.Helper()
	rounded := make(map[string]float64)
	for name, n := range got {
		rounded[name], _ = strconv.ParseFloat(strconv.FormatFloat(n, 'f', 1, 64), 64)
	}
	content, err := json.MarshalIndent(rounded, "", "  ")
	if err == nil {
		err = os.WriteFile(countersFile, append(content, '\n'), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range slices.Sorted(maps.Keys(rounded)) {
		t.Logf("%s: %.1f", name, rounded[name])
	}
}
