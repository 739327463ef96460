package metrics

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"carrel/protocol"
)

var sets = Sets{Agents: []string{"shell"}, Models: []string{"claude-x"}, Routes: []Route{{"GET", "/v1/runs"}}, Steps: []string{"clone"}}

// everywhere tells a word, or what was measured, wherever a method takes one.
func everywhere(m *Metrics, word string) {
	m.RunEnded(word, word, time.Second)
	m.ExecEnded(word, time.Second)
	m.Event(protocol.EventType(word))
	m.Waited(time.Second)
	m.Step(word, time.Second)
	m.WorkerEnded(word)
	m.ModelAnswered(ModelRequest{Model: word, Status: len(word), Took: time.Second, Usage: protocol.Usage{InputTokens: 1, CostUSD: 1}})
	m.ModelRefused(word)
	m.Answered(Request{Route: Route{word, word}, Traffic: word, Status: -1, Took: time.Second})
	m.SignInRefused(word)
}

// series lists what a registry has, without values.
func series(t *testing.T, r *prometheus.Registry) []string {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, f := range families {
		for _, m := range f.GetMetric() {
			all = append(all, f.GetName()+fmt.Sprint(m.GetLabel()))
		}
	}
	slices.Sort(all)
	return all
}

func TestNobodyOutsideCanMakeASeries(t *testing.T) {
	r := prometheus.NewRegistry()
	m := New(r, sets)
	before := series(t, r)
	for i := range 100 {
		everywhere(m, fmt.Sprintf("user-%d", i))
	}
	for _, word := range []string{"", "\x00", "\xff\xfe", `"} 1`, "a\nb", strings.Repeat("x", 1<<20), "Finished", "other"} {
		everywhere(m, word)
	}
	if after := series(t, r); !slices.Equal(before, after) {
		t.Errorf("%d series before, %d after", len(before), len(after))
	}
	if n := testutil.ToFloat64(m.runs[Other][Other]); n != 108 {
		t.Errorf("%g of 108 runs count as other", n)
	}
}

func TestKnownWordsHaveSeriesOfTheirOwn(t *testing.T) {
	m := New(prometheus.NewRegistry(), sets)
	m.RunEnded("shell", Finished, time.Second)
	m.RunEnded("shell", string(protocol.CodeRunTimeout), time.Second)
	m.Event(protocol.EventTextDelta)
	m.ModelAnswered(ModelRequest{Model: "claude-x", Status: 529, Usage: protocol.Usage{OutputTokens: 7, CostUSD: 0.5}, BytesIn: 3, BytesOut: 4})
	m.Answered(Request{Route: Route{"GET", "/v1/runs"}, Status: 404, Traffic: TrafficFiles, Received: 5, Sent: 6})
	m.Started(WarmStart, time.Second)
	m.StartFailed(ColdStart)
	for what, c := range map[string]prometheus.Counter{
		"finished":      m.runs["shell"][Finished],
		"timeout":       m.runs["shell"][string(protocol.CodeRunTimeout)],
		"events":        m.events[protocol.EventTextDelta],
		"broker":        m.brokerRequests["5xx"],
		"http":          m.requests[Route{"GET", "/v1/runs"}]["4xx"],
		"warm start":    m.starts[WarmStart][1],
		"failed starts": m.starts[ColdStart][0],
	} {
		if n := testutil.ToFloat64(c); n != 1 {
			t.Errorf("%s: %g", what, n)
		}
	}
	if n := testutil.ToFloat64(m.tokens["claude-x"]["output"]); n != 7 {
		t.Errorf("%g tokens", n)
	}
	if in, out := testutil.ToFloat64(m.received[TrafficFiles]), testutil.ToFloat64(m.sent[TrafficFiles]); in != 5 || out != 6 {
		t.Errorf("%g bytes in, %g out", in, out)
	}
}

func TestCountingAllocatesNothing(t *testing.T) {
	m := New(prometheus.NewRegistry(), sets)
	everywhere(m, "warm") // native histograms make a bucket at its first value
	for name, count := range map[string]func(){
		"event":       func() { m.Event(protocol.EventTextDelta) },
		"stray event": func() { m.Event("nothing") },
		"run":         func() { m.RunEnded("shell", Finished, time.Second) },
		"request": func() {
			m.Answered(Request{Route: Route{"GET", "/v1/runs"}, Traffic: Other, Status: 200, Took: time.Second})
		},
	} {
		count()
		if n := testing.AllocsPerRun(1000, count); n != 0 {
			t.Errorf("%s: %g allocations", name, n)
		}
	}
}

func TestNamesFollowPrometheusOwnRules(t *testing.T) {
	r := prometheus.NewRegistry()
	New(r, sets)
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if h := m.GetHistogram(); h != nil && (h.Schema == nil || len(h.GetBucket()) == 0) {
				t.Errorf("%s: schema %v, %d classic buckets", f.GetName(), h.Schema, len(h.GetBucket()))
			}
		}
	}
}

func TestNoMetricsCountNothing(*testing.T) { everywhere(nil, "word") }
