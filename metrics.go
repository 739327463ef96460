package carrel

import (
	"context"
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sys/unix"

	"carrel/internal/broker"
	"carrel/internal/httpapi"
	"carrel/internal/jail"
	"carrel/internal/metrics"
	"carrel/internal/pool"
	"carrel/protocol"
)

// openMetrics makes what is counted as it happens, and [readings] of the rest.
func (o *Orchestrator) openMetrics() error {
	sets := metrics.Sets{
		Agents: []string{agentClaude, agentShell},
		Steps:  append(jail.Steps(), pool.StepInitialize),

		WorkerEnds:     metrics.Words(pool.EndReasons()),
		BrokerRefusals: metrics.Words(broker.Refusals()),
		SignInRefusals: metrics.Words(httpapi.SignInRefusals()),
	}
	for _, r := range httpapi.Routes() {
		sets.Routes = append(sets.Routes, metrics.Route{Method: r.Method, Pattern: r.Pattern})
	}
	if o.cfg.AnthropicAPIKey.IsSet() {
		prices, err := o.cfg.prices()
		if err != nil {
			return err
		}
		sets.Models = prices.Models()
	}
	o.registry = prometheus.NewRegistry()
	o.registry.MustRegister(
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		collectors.NewGoCollector(),
		newReadings(o),
	)
	o.metrics = metrics.New(o.registry, sets)
	return nil
}

// Metrics serves GET /metrics: the daemon's figures, and those of its process.
func (o *Orchestrator) Metrics() http.Handler {
	return promhttp.HandlerFor(o.registry, promhttp.HandlerOpts{})
}

// answered counts a request of the HTTP API, and ends its span.
func (o *Orchestrator) answered(ctx context.Context, a httpapi.Answered) {
	traceAnswer(ctx, a)
	method := a.Method
	if method == http.MethodHead {
		method = http.MethodGet // whose route it is
	}
	o.metrics.Answered(metrics.Request{
		Route: metrics.Route{Method: method, Pattern: a.Pattern}, Traffic: trafficOf(a.Pattern), Status: a.Status,
		Received: a.ReceivedBytes, Sent: a.SentBytes, Took: a.Took,
	})
}

// trafficOf tells what a route carries.
func trafficOf(pattern string) string {
	switch {
	case strings.Contains(pattern, "/files"), strings.HasSuffix(pattern, "/attachments"):
		return metrics.TrafficFiles
	case pattern == "/v1/execute", pattern == "/v1/ag-ui", strings.HasSuffix(pattern, "/events"), strings.HasSuffix(pattern, "/exec"):
		return metrics.TrafficStreams
	}
	return metrics.Other
}

// started counts a start of a worker.
func (o *Orchestrator) started(s pool.Start) {
	kind := metrics.StartKind(s.Kind)
	if s.Err != nil {
		o.metrics.StartFailed(kind)
	} else {
		o.metrics.Started(kind, s.Ended.Sub(s.Began))
	}
	for _, step := range s.Steps {
		o.metrics.Step(step.Step, step.Took)
	}
}

// modelAnswered counts a request that the broker has let out.
func (o *Orchestrator) modelAnswered(x broker.Exchange) {
	o.metrics.ModelAnswered(metrics.ModelRequest{
		Model: x.Model, Status: x.Status, Took: x.Took, BytesIn: x.BytesIn, BytesOut: x.BytesOut, Usage: x.Usage,
	})
}

// endingOf is the label of how something ended.
func endingOf(err error) string {
	if err == nil {
		return metrics.Finished
	}
	return string(protocol.CodeOf(err))
}

// readings are the figures that can be read at any time, from what the rooms know
// anyway. Every label has a bounded set of values: no user and no run is one.
type readings struct {
	o *Orchestrator

	build, workers, maxWorkers, warm, queued, queueSize *prometheus.Desc
	going, degraded, layer, auditLost, denials          *prometheus.Desc
	diskSize, diskFree                                  *prometheus.Desc
}

var _ prometheus.Collector = (*readings)(nil)

func newReadings(o *Orchestrator) *readings {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("carrel_"+name, help, labels, nil)
	}
	return &readings{
		o:          o,
		build:      desc("build_info", "1, with the version.", "version"),
		workers:    desc("workers", "Live workers by state.", "state"),
		maxWorkers: desc("workers_max", "Live workers at most (SANDBOX_MAX_WORKERS)."),
		warm:       desc("workers_warm", "Workers that are ready and bound to nobody."),
		queued:     desc("queue_runs", "Runs that wait for a worker."),
		queueSize:  desc("queue_size", "Runs that may wait at most (SANDBOX_QUEUE_SIZE)."),
		going:      desc("runs_going", "Runs, commands and uses of files between their beginning and their end."),
		degraded:   desc("isolation_degraded", "1 = sandboxes lack a layer that SANDBOX_ISOLATION=strict or SANDBOX_REQUIRE asks for."),
		layer:      desc("isolation_layer", "1 = the layer holds in full, 0 = degraded or missing.", "layer"),
		denials:    desc("denials_total", "What workers say that their sandboxes have denied, by layer.", "layer"),
		auditLost:  desc("audit_lost_total", "Lines of the audit log that could not be written."),
		diskSize:   desc("disk_size_bytes", "Size of the file system of SANDBOX_BASE_DIR."),
		diskFree:   desc("disk_free_bytes", "What of it the daemon may still use."),
	}
}

// Describe implements [prometheus.Collector].
func (m *readings) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		m.build, m.workers, m.maxWorkers, m.warm, m.queued, m.queueSize, m.going, m.degraded, m.layer, m.auditLost, m.denials,
		m.diskSize, m.diskFree,
	} {
		to <- d
	}
}

// Collect implements [prometheus.Collector].
func (m *readings) Collect(to chan<- prometheus.Metric) {
	tell := func(d *prometheus.Desc, kind prometheus.ValueType, value float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, kind, value, labels...)
	}
	tell(m.build, prometheus.GaugeValue, 1, m.o.version)
	held := m.o.pool.Figures()
	for _, state := range []protocol.SandboxState{
		protocol.SandboxStarting, protocol.SandboxReady, protocol.SandboxIdle, protocol.SandboxBusy, protocol.SandboxDraining,
	} {
		tell(m.workers, prometheus.GaugeValue, float64(held.ByState[string(state)]), string(state))
	}
	tell(m.maxWorkers, prometheus.GaugeValue, float64(held.MaxWorkers))
	tell(m.warm, prometheus.GaugeValue, float64(held.Warm))
	tell(m.queued, prometheus.GaugeValue, float64(held.Queued))
	tell(m.queueSize, prometheus.GaugeValue, float64(held.QueueSize))
	tell(m.going, prometheus.GaugeValue, float64(m.o.countGoing()))
	var disk unix.Statfs_t
	if unix.Statfs(m.o.cfg.BaseDir, &disk) == nil {
		tell(m.diskSize, prometheus.GaugeValue, float64(disk.Blocks)*float64(disk.Frsize))
		tell(m.diskFree, prometheus.GaugeValue, float64(disk.Bavail)*float64(disk.Frsize))
	}
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
