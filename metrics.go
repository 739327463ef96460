package carrel

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"carrel/protocol"
)

// metrics tells the daemon's figures in Prometheus' form, from what the rooms count
// anyway. Every label has a bounded set of values: no user and no run is one.
type metrics struct {
	o *Orchestrator

	workers, maxWorkers, warm, queued, queueSize *prometheus.Desc
	going, tokens, cost, requests                *prometheus.Desc
	degraded, layer                              *prometheus.Desc
	auditLost, denials                           *prometheus.Desc
}

var _ prometheus.Collector = (*metrics)(nil)

// Metrics serves GET /metrics: the daemon's figures, and those of its process.
func (o *Orchestrator) Metrics() http.Handler {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("carrel_"+name, help, labels, nil)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		collectors.NewGoCollector(),
		&metrics{
			o:          o,
			workers:    desc("workers", "Live workers by state.", "state"),
			maxWorkers: desc("workers_max", "Live workers at most (SANDBOX_MAX_WORKERS)."),
			warm:       desc("workers_warm", "Workers that are ready and bound to nobody."),
			queued:     desc("queue_runs", "Runs that wait for a worker."),
			queueSize:  desc("queue_size", "Runs that may wait at most (SANDBOX_QUEUE_SIZE)."),
			going:      desc("runs_going", "Runs and commands between their record and their ending."),
			tokens:     desc("model_tokens_total", "Tokens that the model's answers have counted, by kind.", "kind"),
			cost:       desc("model_cost_usd_total", "Money that the model's answers have cost, in US dollars by the price table."),
			requests:   desc("broker_requests_total", "Requests that the broker has let out of sandboxes."),
			degraded:   desc("isolation_degraded", "1 = sandboxes lack a layer that SANDBOX_ISOLATION=strict or SANDBOX_REQUIRE asks for."),
			layer:      desc("isolation_layer", "1 = the layer holds in full, 0 = degraded or missing.", "layer"),
			denials:    desc("denials_total", "What workers say that their sandboxes have denied, by layer.", "layer"),
			auditLost:  desc("audit_lost_total", "Lines of the audit log that could not be written."),
		},
	)
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
}

// Describe implements [prometheus.Collector].
func (m *metrics) Describe(to chan<- *prometheus.Desc) { prometheus.DescribeByCollect(m, to) }

// Collect implements [prometheus.Collector].
func (m *metrics) Collect(to chan<- prometheus.Metric) {
	tell := func(d *prometheus.Desc, kind prometheus.ValueType, value float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, kind, value, labels...)
	}
	pool := m.o.pool.Figures()
	for _, state := range []protocol.SandboxState{
		protocol.SandboxStarting, protocol.SandboxReady, protocol.SandboxIdle, protocol.SandboxBusy, protocol.SandboxDraining,
	} {
		tell(m.workers, prometheus.GaugeValue, float64(pool.ByState[string(state)]), string(state))
	}
	tell(m.maxWorkers, prometheus.GaugeValue, float64(pool.MaxWorkers))
	tell(m.warm, prometheus.GaugeValue, float64(pool.Warm))
	tell(m.queued, prometheus.GaugeValue, float64(pool.Queued))
	tell(m.queueSize, prometheus.GaugeValue, float64(pool.QueueSize))
	tell(m.going, prometheus.GaugeValue, float64(m.o.countGoing()))
	used := m.o.totals()
	for kind, tokens := range map[string]int64{
		"input": used.InputTokens, "output": used.OutputTokens, "cache_read": used.CacheReadTokens, "cache_creation": used.CacheCreationTokens,
	} {
		tell(m.tokens, prometheus.CounterValue, float64(tokens), kind)
	}
	tell(m.cost, prometheus.CounterValue, used.CostUSD)
	tell(m.requests, prometheus.CounterValue, float64(used.Requests))
	tell(m.degraded, prometheus.GaugeValue, oneIf(m.o.isolation.State != isolationStrict))
	for layer, count := range m.o.denials {
		tell(m.denials, prometheus.CounterValue, float64(count.Load()), layer)
	}
	tell(m.auditLost, prometheus.CounterValue, float64(m.o.audit.Lost()))
	for _, l := range m.o.isolation.Layers {
		tell(m.layer, prometheus.GaugeValue, oneIf(l.State == protocol.LayerOK), l.Name)
	}
}

func oneIf(claim bool) float64 {
	if claim {
		return 1
	}
	return 0
}
