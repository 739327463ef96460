package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"carrel/protocol"
)

// Sets are the values that labels may have, besides [Other]: those that hang on the
// configuration or on another room.
type Sets struct {
	Agents []string
	Models []string // with a price
	Routes []Route  // of the HTTP API
	Steps  []string // of a start

	WorkerEnds     []string // why workers end
	BrokerRefusals []string // why a model request is not let out
	SignInRefusals []string
}

// Route is one of the HTTP API.
type Route struct{ Method, Pattern string }

// Metrics are the daemon's counters and histograms.
type Metrics struct {
	starts     map[StartKind][2]prometheus.Counter // failed, ok
	startTimes histograms
	stepTimes  histograms
	ends       counters
	queueWait  prometheus.Observer

	runs      map[string]counters // by agent, then ending
	runTimes  histograms
	execs     counters
	execTimes prometheus.Observer
	events    map[protocol.EventType]prometheus.Counter
	strays    prometheus.Counter // events of no known type

	tokens map[string]counters // by model, then kind
	cost   counters

	brokerRequests            counters
	brokerTimes               prometheus.Observer
	brokerRefused             counters
	brokerBytesIn, brokerSent prometheus.Counter

	requests       map[Route]counters // by route, then status; the zero one is of no route
	requestTimes   histograms
	received, sent counters
	signIns        counters
	spans          counters
}

// StartKind is whom a worker was started for.
type StartKind string

// The kinds of starts.
const (
	ColdStart  StartKind = "cold"  // for a user, from nothing
	WarmStart  StartKind = "warm"  // for a user, from a warm worker
	SpareStart StartKind = "spare" // for nobody yet: a worker becomes warm
)

// The sets that hang on nothing.
var (
	startKinds = []StartKind{ColdStart, WarmStart, SpareStart}
	statuses   = []string{"1xx", "2xx", "3xx", "4xx", "5xx"}
	tokenKinds = []string{"input", "output", "cache_read", "cache_creation"}
	traffic    = []string{TrafficFiles, TrafficStreams}
)

// Traffic of the HTTP API.
const (
	TrafficFiles   = "files"   // files and attachments
	TrafficStreams = "streams" // runs and commands: what goes in, and what comes out of them
)

// Finished is the ending of a run or command that came to its own end; all others are
// codes.
const Finished = "finished"

// New makes the metrics and registers them.
func New(to prometheus.Registerer, sets Sets) *Metrics {
	mk := maker{to}
	m := &Metrics{
		startTimes: mk.seconds("worker_start_seconds", "Starts of workers that succeeded, by kind: cold and warm until the user's worker is ready, spare until it is warm.",
			waitSeconds, "kind", Words(startKinds)),
		stepTimes: mk.seconds("worker_start_step_seconds", "Steps of starts, as the jail reports them.", stepSeconds, "step", sets.Steps),
		ends:      mk.counters("worker_ends_total", "Workers that have ended, by reason; stopped = carrel wanted it.", "reason", sets.WorkerEnds),
		queueWait: mk.seconds("queue_wait_seconds", "What runs and commands have waited for their turn, before a start for them or a worker; refused ones included.",
			waitSeconds, "", nil).of(""),

		runTimes:  mk.seconds("run_seconds", "Runs from their record to their ending, the wait included.", workSeconds, "agent", sets.Agents),
		execs:     mk.counters("execs_total", "Commands by ending: finished, or the code of the error.", "ending", endings()),
		execTimes: mk.seconds("exec_seconds", "Commands from the request to their end, the wait included.", workSeconds, "", nil).of(""),

		cost: mk.counters("model_cost_usd_total", "Money that ended model requests have cost, in US dollars by the price table, by the table's model.", "model", sets.Models),

		brokerRequests: mk.counters("broker_requests_total", "Requests that the broker has let out of sandboxes and that have ended, by class of the status answered.", "status", statuses),
		brokerTimes:    mk.seconds("broker_request_seconds", "Those requests, from the sandbox's request to the end of the answer.", workSeconds, "", nil).of(""),
		brokerRefused:  mk.counters("broker_refused_total", "Requests that the broker has not let out of sandboxes.", "reason", sets.BrokerRefusals),

		requestTimes: mk.seconds("http_request_seconds", "Requests of the HTTP API until their answer has ended, by what they carry.", workSeconds, "of", traffic),
		received:     mk.counters("http_received_bytes_total", "Bytes of bodies received by the HTTP API.", "of", traffic),
		sent:         mk.counters("http_sent_bytes_total", "Bytes of bodies sent by the HTTP API.", "of", traffic),
		signIns:      mk.counters("sign_ins_refused_total", "Requests refused before their caller was known or because the caller sends too many.", "reason", sets.SignInRefusals),
	}
	m.spans = mk.counters("trace_spans_total", "Spans that the OTLP endpoint has taken, and that were given up because it did not.", "result", []string{"sent", "lost"})
	m.makeTables(mk, sets)
	return m
}

// makeTables makes what has two labels.
func (m *Metrics) makeTables(mk maker, sets Sets) {
	bytes := mk.vector("broker_bytes_total", "Bytes of bodies between sandboxes and the model API.", "direction")
	m.brokerBytesIn, m.brokerSent = bytes.WithLabelValues("to_model"), bytes.WithLabelValues("to_sandbox")

	starts := mk.vector("worker_starts_total", "Starts of workers by kind: cold and warm for a user, spare for nobody yet.", "kind", "result")
	m.starts = make(map[StartKind][2]prometheus.Counter, len(startKinds))
	for _, kind := range startKinds {
		m.starts[kind] = [2]prometheus.Counter{starts.WithLabelValues(string(kind), "failed"), starts.WithLabelValues(string(kind), "ok")}
	}
	m.runs = table(mk.vector("runs_total", "Runs that have ended, by agent and ending: finished, or the code of the error.", "agent", "ending"), sets.Agents, endings())
	m.tokens = table(mk.vector("model_tokens_total", "Tokens that ended model requests have counted, by model and kind.", "model", "kind"), sets.Models, tokenKinds)
	requests := mk.vector("http_requests_total", "Requests of the HTTP API, by route and class of the status.", "route", "status")
	m.requests = map[Route]counters{{}: curry(requests, statuses, Other)}
	for _, r := range sets.Routes {
		m.requests[r] = curry(requests, statuses, r.Method+" "+r.Pattern)
	}

	events := mk.vector("events_total", "Events of runs that were stored, by type.", "type")
	types := protocol.EventTypes()
	m.events = make(map[protocol.EventType]prometheus.Counter, len(types))
	for _, t := range types {
		m.events[t] = events.WithLabelValues(string(t))
	}
	m.strays = events.WithLabelValues(Other)
}

func table(v *prometheus.CounterVec, rows, columns []string) map[string]counters {
	all := make(map[string]counters, len(rows)+1)
	for _, row := range append([]string{Other}, rows...) {
		all[row] = curry(v, columns, row)
	}
	return all
}

// row finds a value's counters, or those of [Other].
func row(all map[string]counters, value string) counters {
	if c, ok := all[value]; ok {
		return c
	}
	return all[Other]
}

// of finds a route's counters, or those of none.
func (m *Metrics) of(r Route) counters {
	if c, ok := m.requests[r]; ok {
		return c
	}
	return m.requests[Route{}]
}

func endings() []string { return append(Words(protocol.Codes()), Finished) }

// Words are a set of another room as labels.
func Words[T ~string](values []T) []string {
	all := make([]string, len(values))
	for i, v := range values {
		all[i] = string(v)
	}
	return all
}

// class is a status's: "2xx"; [Other] for none.
func class(status int) string {
	if status < 100 || status > 599 {
		return Other
	}
	return statuses[status/100-1]
}

// RunEnded counts a run. ending is [Finished] or a code, took from its record on; 0 = it
// is not known.
func (m *Metrics) RunEnded(agent, ending string, took time.Duration) {
	if m == nil {
		return
	}
	row(m.runs, agent).of(ending).Inc()
	if took > 0 {
		m.runTimes.of(agent).Observe(took.Seconds())
	}
}

// ExecEnded counts a command.
func (m *Metrics) ExecEnded(ending string, took time.Duration) {
	if m == nil {
		return
	}
	m.execs.of(ending).Inc()
	m.execTimes.Observe(took.Seconds())
}

// Event counts an event that was stored.
func (m *Metrics) Event(t protocol.EventType) {
	if m == nil {
		return
	}
	counter, ok := m.events[t]
	if !ok {
		counter = m.strays
	}
	counter.Inc()
}

// Waited counts a wait for one's turn.
func (m *Metrics) Waited(d time.Duration) {
	if m != nil {
		m.queueWait.Observe(max(d, 0).Seconds())
	}
}

// Started counts a start that has succeeded.
func (m *Metrics) Started(kind StartKind, took time.Duration) {
	if m == nil {
		return
	}
	m.starts[kind][1].Inc()
	m.startTimes.of(string(kind)).Observe(took.Seconds())
}

// StartFailed counts one that has not.
func (m *Metrics) StartFailed(kind StartKind) {
	if m != nil {
		m.starts[kind][0].Inc()
	}
}

// Step counts a step of a start.
func (m *Metrics) Step(name string, took time.Duration) {
	if m != nil {
		m.stepTimes.of(name).Observe(took.Seconds())
	}
}

// WorkerEnded counts the end of a worker.
func (m *Metrics) WorkerEnded(reason string) {
	if m != nil {
		m.ends.of(reason).Inc()
	}
}

// ModelRequest is one that has ended.
type ModelRequest struct {
	Model             string // of the price table
	Status            int    // 0 = none was answered
	Took              time.Duration
	BytesIn, BytesOut int64 // to the model, to the sandbox
	Usage             protocol.Usage
}

// ModelAnswered counts a request that the broker has let out.
func (m *Metrics) ModelAnswered(r ModelRequest) {
	if m == nil {
		return
	}
	m.brokerRequests.of(class(r.Status)).Inc()
	m.brokerTimes.Observe(r.Took.Seconds())
	m.brokerBytesIn.Add(float64(max(r.BytesIn, 0)))
	m.brokerSent.Add(float64(max(r.BytesOut, 0)))
	tokens := row(m.tokens, r.Model)
	tokens["input"].Add(float64(max(r.Usage.InputTokens, 0)))
	tokens["output"].Add(float64(max(r.Usage.OutputTokens, 0)))
	tokens["cache_read"].Add(float64(max(r.Usage.CacheReadTokens, 0)))
	tokens["cache_creation"].Add(float64(max(r.Usage.CacheCreationTokens, 0)))
	m.cost.of(r.Model).Add(max(r.Usage.CostUSD, 0))
}

// ModelRefused counts a request that the broker has not let out.
func (m *Metrics) ModelRefused(reason string) {
	if m != nil {
		m.brokerRefused.of(reason).Inc()
	}
}

// Request is one of the HTTP API that has been answered.
type Request struct {
	Route          Route
	Traffic        string
	Status         int
	Received, Sent int64 // bytes of bodies
	Took           time.Duration
}

// Answered counts a request of the HTTP API.
func (m *Metrics) Answered(r Request) {
	if m == nil {
		return
	}
	m.of(r.Route).of(class(r.Status)).Inc()
	m.requestTimes.of(r.Traffic).Observe(r.Took.Seconds())
	m.received.of(r.Traffic).Add(float64(r.Received))
	m.sent.of(r.Traffic).Add(float64(r.Sent))
}

// SpansSent counts spans that were sent, or not.
func (m *Metrics) SpansSent(spans int, err error) {
	if m == nil {
		return
	}
	result := "sent"
	if err != nil {
		result = "lost"
	}
	m.spans.of(result).Add(float64(spans))
}

// SignInRefused counts a request that nobody, or nobody any more, may make.
func (m *Metrics) SignInRefused(reason string) {
	if m != nil {
		m.signIns.of(reason).Inc()
	}
}
