package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"carrel/internal/anthropictest"
	"carrel/internal/logline"
	"carrel/protocol"
)

const (
	callersTrace = "0af7651916cd43dd8448eb211c80319c"
	callersSpan  = "b7ad6b7169203331"
	traceparent  = "00-" + callersTrace + "-" + callersSpan + "-01"
)

// receiver is an OTLP endpoint that keeps what it is sent.
type receiver struct {
	*httptest.Server

	mu       sync.Mutex
	spans    []*tracepb.Span
	resource string
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	r := &receiver{}
	r.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		var data tracepb.TracesData
		if err == nil {
			err = proto.Unmarshal(body, &data)
		}
		if err != nil || req.URL.Path != "/v1/traces" {
			t.Errorf("%s: %v", req.URL, err)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, rs := range data.GetResourceSpans() {
			r.resource = rs.GetResource().String()
			for _, ss := range rs.GetScopeSpans() {
				r.spans = append(r.spans, ss.GetSpans()...)
			}
		}
	}))
	t.Cleanup(r.Close)
	return r
}

// tree shows spans below that of a parent, indented, in the order of their beginning.
// Tests give the parent's id in hex.
func (r *receiver) tree(parent, indent string) string {
	var below []*tracepb.Span
	for _, s := range r.spans {
		if fmt.Sprintf("%x", s.GetParentSpanId()) == parent {
			below = append(below, s)
		}
	}
	slices.SortStableFunc(below, func(a, b *tracepb.Span) int { return int(a.GetStartTimeUnixNano() - b.GetStartTimeUnixNano()) })
	var b strings.Builder
	for _, s := range below {
		fmt.Fprintf(&b, "%s%s\n%s", indent, s.GetName(), r.tree(fmt.Sprintf("%x", s.GetSpanId()), indent+" "))
	}
	return b.String()
}

// named are the spans of a name.
func (r *receiver) named(name string) []*tracepb.Span {
	var all []*tracepb.Span
	for _, s := range r.spans {
		if s.GetName() == name {
			all = append(all, s)
		}
	}
	return all
}

// A run is one trace, from the request of whoever asked for it to the last tool: the
// caller's, which the webhooks hear of, and the model API does not.
func TestRunIsOneTraceFromItsCallersSpanOn(t *testing.T) {
	r := newReceiver(t)
	var heard []string
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		heard = append(heard, req.Header.Get("Traceparent"))
		w.WriteHeader(http.StatusNoContent)
	}))
	defer hook.Close()
	permissions := filepath.Join(t.TempDir(), "permissions.json")
	text := `{"default": "allow", "hooks": [{"event": "before_tool", "webhook": "` + hook.URL + `"}]}`
	if err := os.WriteFile(permissions, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s := play(t, aTool(), "OTEL_EXPORTER_OTLP_ENDPOINT="+r.URL, "CARREL_PERMISSIONS_FILE="+permissions)
	status, body := s.post("/v1/execute", `{"user_id":"zz1@example.org","session_id":"s","message":"go"}`, http.Header{"Traceparent": {traceparent}})
	if status != http.StatusOK {
		t.Fatalf("%d %s", status, body)
	}
	s.get("/metrics", nil)
	s.stop()
	r.Close() // what its goroutines have written can be read
	hook.Close()

	want := `POST /v1/execute
 run
  queue
  worker start
   start step: clone
   start step: private
   start step: root
   start step: system
   start step: etc
   start step: dev
   start step: proc
   start step: tmp
   start step: binary
   start step: network
   start step: hostname
   start step: broker
   start step: bind
   start step: pivot
   start step: limits
   start step: hide
   start step: capabilities
   start step: no_new_privs
   start step: landlock
   start step: seccomp
   start step: initialize
  model request
  tool
  model request
`
	if got := r.tree(callersSpan, ""); got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	for _, span := range r.spans {
		if fmt.Sprintf("%x", span.GetTraceId()) != callersTrace {
			t.Errorf("%s is of another trace", span.GetName())
		}
		if text := span.String(); strings.Contains(text, "example.org") || strings.Contains(text, canary) {
			t.Errorf("a span tells too much: %s", text)
		}
	}
	run := r.named("run")[0].String()
	for _, part := range []string{logline.User("zz1@example.org"), `"run_`, `"carrel.ending"`, `"finished"`, `"claude"`, `"carrel.worker"`} {
		if !strings.Contains(run, part) {
			t.Errorf("the run's span has no %s: %s", part, run)
		}
	}
	if tool := r.named("tool")[0].String(); !strings.Contains(tool, `"bash"`) {
		t.Errorf("the tool's span: %s", tool)
	}
	if !strings.Contains(r.resource, `"carrel"`) {
		t.Errorf("the resource is %s", r.resource)
	}
	if runSpan := fmt.Sprintf("00-%s-%x-01", callersTrace, r.named("run")[0].GetSpanId()); !slices.Equal(heard, []string{runSpan}) {
		t.Errorf("the webhook heard of %q, want %q", heard, runSpan)
	}
	if toModel := s.heard(); !slices.Equal(toModel, []string{"", ""}) {
		t.Errorf("the model API heard of %q", toModel)
	}
	for _, message := range []string{"run accepted", "run ended", "request"} {
		for _, l := range s.lines(message) {
			if l.text(logline.KeyTrace) != callersTrace && l.text("route") != "/metrics" {
				t.Errorf("the log has no trace: %v", l)
			}
		}
	}
}

// aTool is a script of two requests, with a tool in between.
func aTool() []anthropictest.Turn {
	return turns(step{message: "go", calls: []anthropictest.Block{bash("t1", "true")}, results: []string{""}, answer: "Done."})
}

// heard are the headers of the trace that the model API was sent.
func (s *stage) heard() []string {
	var all []string
	for _, q := range s.model.Requests() {
		all = append(all, q.Header.Get("Traceparent")+q.Header.Get("Tracestate"))
	}
	return all
}

func TestModelAPIHearsOfTheTraceWhereTheOperatorWantsThat(t *testing.T) {
	r := newReceiver(t)
	s := play(t, aTool(), "OTEL_EXPORTER_OTLP_ENDPOINT="+r.URL, "CARREL_TRACE_MODEL_API=true")
	status, body := s.post("/v1/execute", `{"user_id":"ana","message":"go"}`, http.Header{"Traceparent": {traceparent}, "Tracestate": {"x=secret"}})
	if status != http.StatusOK {
		t.Fatalf("%d %s", status, body)
	}
	s.stop()
	r.Close()
	var want []string
	for _, span := range r.named("model request") {
		want = append(want, fmt.Sprintf("00-%s-%x-01", callersTrace, span.GetSpanId()))
	}
	if toModel := s.heard(); len(want) != 2 || !slices.Equal(toModel, want) {
		t.Errorf("the model API heard of %q, want %q", toModel, want)
	}
}

// Whatever a caller sends as traceparent, its run goes on, as a trace of its own.
func TestNonsenseInTraceparentHarmsNoRun(t *testing.T) {
	r := newReceiver(t)
	d := serve(t, t.TempDir(), "SANDBOX_WARM_WORKERS=0", "OTEL_EXPORTER_OTLP_ENDPOINT="+r.URL)
	for _, header := range [][]string{
		{"x"}, {traceparent, traceparent}, {strings.Repeat("0", 8000)}, {strings.ToUpper(traceparent)}, {traceparent + "\t-x"}, {"00-" + strings.Repeat("0", 32) + "-" + callersSpan + "-01"},
	} {
		status, body := d.post("/v1/execute", `{"user_id":"ana","message":"echo hello"}`, http.Header{"Traceparent": header})
		if status != http.StatusOK || !strings.Contains(string(body), "hello") {
			t.Errorf("%.60q: %d %s", header, status, body)
		}
	}
	d.stop()
	r.Close()
	roots := map[string]bool{}
	for _, span := range r.named("POST /v1/execute") {
		if len(span.GetParentSpanId()) != 0 {
			t.Errorf("a span has nonsense as its parent: %v", span)
		}
		roots[string(span.GetTraceId())] = true
	}
	if len(roots) != 6 {
		t.Errorf("%d traces of 6 runs", len(roots))
	}
}

// An endpoint that is not there, and one that takes connections and is silent: runs do
// not notice, and the daemon still ends.
func TestRunsAndTheDaemonsEndDoNotHangOnTheEndpoint(t *testing.T) {
	hang := make(chan struct{})
	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		select {
		case <-hang:
		case <-req.Context().Done():
		}
	}))
	defer silent.Close()
	defer close(hang)
	for name, endpoint := range map[string]string{"absent": "http://127.0.0.1:1", "silent": silent.URL} {
		t.Run(name, func(t *testing.T) {
			d := serve(t, t.TempDir(), "SANDBOX_WARM_WORKERS=0", "OTEL_EXPORTER_OTLP_ENDPOINT="+endpoint, "OTEL_EXPORTER_OTLP_HEADERS=authorization="+canary, "OTEL_BSP_SCHEDULE_DELAY=1")
			for range 20 {
				d.script("ana", "echo hello")
			}
			if system, err := d.client.System(t.Context()); err != nil || strings.Contains(fmt.Sprint(system), canary) {
				t.Errorf("the system tells %v, %v", system, err)
			}
			d.stop()
			if text := d.log.String(); !strings.Contains(text, "spans are lost") || strings.Contains(text, canary) {
				t.Errorf("the log:\n%s", text)
			}
		})
	}
}

// Commands are traced as well, and a run that nobody sent a trace for has one of its own.
func TestCommandsAndRunsWithoutACallersTraceAreTraced(t *testing.T) {
	r := newReceiver(t)
	d := serve(t, t.TempDir(), "SANDBOX_WARM_WORKERS=1", "OTEL_EXPORTER_OTLP_ENDPOINT="+r.URL)
	d.exec("ana", "true")
	d.exec("ana", "true")
	status, _ := d.post("/v1/execute", `{"user_id":"ana","message":"sleep 60","config":{"timeout_s":0.1}}`, nil)
	if status != http.StatusGatewayTimeout {
		t.Errorf("status %d", status)
	}
	d.stop()
	r.Close()
	if n := len(r.named("command")); n != 2 {
		t.Errorf("%d spans of 2 commands", n)
	}
	if n := len(r.named("worker start")); n > 1 {
		t.Errorf("%d spans of one start", n)
	}
	runs := r.named("run")
	if len(runs) != 1 || runs[0].GetStatus().GetCode() != tracepb.Status_STATUS_CODE_ERROR || runs[0].GetStatus().GetMessage() != string(protocol.CodeRunTimeout) {
		t.Errorf("runs: %v", runs)
	}
}
