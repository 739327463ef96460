package local

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"carrel/internal/engine"
	"carrel/protocol"
)

// BenchmarkWarmBind measures what a user waits for who gets a warm worker: from
// its claim to the first event, beside a cold start up to the same event. The two
// take turns in each round, so that their ratio comes from one run. Start of a warm
// worker and claim together are a cold start by way of a slot, as it would be if all
// workers were started so. It also tells what a warm worker that waits holds of
// memory, its share of common pages included.
func BenchmarkWarmBind(b *testing.B) {
	e := newEngine(b)
	var cold, warm, late, bind []time.Duration
	var pss []int64
	for b.Loop() {
		d, _ := firstEvent(b, e, protocol.EventRunStarted)
		cold = append(cold, d)

		start := time.Now()
		p, err := e.Start(b.Context(), engine.Spec{})
		if err != nil {
			b.Fatal(err)
		}
		took := time.Since(start)
		started := len(p.(*process).Steps()) // the engine's own type
		pss = append(pss, proportionalBytes(b, p.PID()))
		d = eventOf(b, p, time.Now(), protocol.EventRunStarted)
		warm, late = append(warm, d), append(late, took+d)
		var inside time.Duration
		for _, s := range p.(*process).Steps()[started:] {
			inside += s.Took
		}
		bind = append(bind, inside)
	}
	b.ReportMetric(milliseconds(median(cold)), "cold-p50-ms")
	b.ReportMetric(milliseconds(median(warm)), "warm-p50-ms")
	b.ReportMetric(milliseconds(median(late)), "cold-by-slot-p50-ms")
	b.ReportMetric(milliseconds(median(bind)), "steps-of-bind-p50-ms")
	b.ReportMetric(float64(median(cold))/float64(median(warm)), "cold/warm")
	b.ReportMetric(float64(median(late))/float64(median(cold)), "cold-by-slot/cold")
	var sum int64
	for _, bytes := range pss {
		sum += bytes
	}
	b.ReportMetric(float64(sum)/float64(len(pss))/(1<<20), "warm-pss-MiB")
}

// proportionalBytes is the PSS of a process (proc_pid_smaps(5)).
func proportionalBytes(b *testing.B, pid int) int64 {
	b.Helper()
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/smaps_rollup")
	if err != nil {
		b.Fatal(err)
	}
	_, after, _ := strings.Cut(string(text), "\nPss:")
	return number(strings.Fields(after)[0]) << 10
}
