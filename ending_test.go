package carrel

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"carrel/internal/metrics"
	"carrel/protocol"
)

// Each ending counts once: that of a run which another daemon began as well, whose time
// is not known, and one that a worker calls as it likes as other.
func TestEachEndingIsCountedByAWordOfOurs(t *testing.T) {
	registry := prometheus.NewRegistry()
	counted := metrics.New(registry, metrics.Sets{Agents: []string{agentShell}})
	for _, c := range []struct {
		began  time.Time
		kind   protocol.EventType
		data   string
		ending string
	}{
		{time.Now().Add(-time.Second), protocol.EventRunFinished, `{"code":"canceled"}`, metrics.Finished},
		{time.Now().Add(-time.Second), protocol.EventRunError, `{"code":"canceled"}`, "canceled"},
		{time.Now().Add(-time.Second), protocol.EventRunError, `{"code":"ana@example.org"}`, metrics.Other},
		{time.Time{}, protocol.EventRunError, `{"code":"interrupted"}`, "interrupted"},
	} {
		r := &recorder{began: c.began, metrics: counted}
		r.about.Agent = agentShell
		r.noteEnd(t.Context(), c.kind, []byte(c.data))
		if r.ending != c.ending {
			t.Errorf("%s ended as %q", c.data, r.ending)
		}
	}
	scrape := httptest.NewRecorder()
	(&Orchestrator{registry: registry}).Metrics().ServeHTTP(scrape, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
	for _, line := range []string{
		`carrel_runs_total{agent="shell",ending="finished"} 1`, `carrel_runs_total{agent="shell",ending="canceled"} 1`,
		`carrel_runs_total{agent="shell",ending="other"} 1`, `carrel_runs_total{agent="shell",ending="interrupted"} 1`,
		`carrel_run_seconds_count{agent="shell"} 3`,
	} {
		if !strings.Contains(scrape.Body.String(), line+"\n") {
			t.Errorf("no %s", line)
		}
	}
}
