package tracing

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	parent  = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	traceID = "0af7651916cd43dd8448eb211c80319c"
)

// receiver takes spans, as an OTLP endpoint does.
type receiver struct {
	*httptest.Server

	mu      sync.Mutex
	spans   []*tracepb.Span
	headers []http.Header
	answer  func(n int) int // the status of the nth request, from 1; nil = 200
	asked   int
}

func newReceiver(t *testing.T) *receiver {
	t.Helper()
	r := &receiver{}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		var data tracepb.TracesData
		if err == nil {
			err = proto.Unmarshal(body, &data)
		}
		if err != nil || req.URL.Path != "/base/v1/traces" || req.Method != http.MethodPost {
			t.Errorf("%s %s: %v", req.Method, req.URL, err)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.asked++
		if r.answer != nil {
			if status := r.answer(r.asked); status != http.StatusOK {
				w.WriteHeader(status)
				return
			}
		}
		r.headers = append(r.headers, req.Header)
		for _, rs := range data.GetResourceSpans() {
			for _, ss := range rs.GetScopeSpans() {
				r.spans = append(r.spans, ss.GetSpans()...)
			}
		}
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) tracer(t *testing.T, change ...func(*Options)) *Tracer {
	t.Helper()
	o := Options{Endpoint: r.URL + "/base/", Version: "1.2.3"}
	for _, c := range change {
		c(&o)
	}
	tracer, err := New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return tracer
}

func accept(ctx context.Context, values ...string) context.Context {
	return Accept(ctx, http.Header{Header: values})
}

func TestSpansReachTheEndpointWithTheirParents(t *testing.T) {
	r := newReceiver(t)
	var headers Headers
	if err := headers.UnmarshalText([]byte("authorization=Bearer%20secret, X-Two=2,")); err != nil {
		t.Fatal(err)
	}
	sent := 0
	tracer := r.tracer(t, func(o *Options) {
		o.Headers = headers
		o.Sent = func(n int, err error) { sent += n }
	})
	ctx, outer := tracer.Start(accept(t.Context(), parent), "outer", Server, time.Time{})
	began := time.Now().Add(-time.Hour)
	tracer.Tell(ctx, "inner", Internal, began, began.Add(time.Second), Text("long", strings.Repeat("x", 10_000)))
	outer.Fail("why")
	outer.End()
	if err := tracer.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(r.spans) != 2 || sent != 2 {
		t.Fatalf("%d spans, %d are told as sent", len(r.spans), sent)
	}
	inner, top := r.spans[0], r.spans[1]
	if fmt.Sprintf("%x %x", top.GetTraceId(), top.GetParentSpanId()) != traceID+" b7ad6b7169203331" {
		t.Errorf("the caller's span is not the parent: %v", top)
	}
	if string(inner.GetParentSpanId()) != string(top.GetSpanId()) || inner.GetEndTimeUnixNano()-inner.GetStartTimeUnixNano() != 1e9 {
		t.Errorf("inner: %v", inner)
	}
	if n := len(inner.GetAttributes()[0].GetValue().GetStringValue()); n != maxValueBytes {
		t.Errorf("an attribute has %d bytes", n)
	}
	if h := r.headers[0]; h.Get("Authorization") != "Bearer secret" || h.Get("X-Two") != "2" || h.Get("Content-Type") != "application/x-protobuf" {
		t.Errorf("headers %v", h)
	}
}

func TestNonsenseInTraceparentIsNoTrace(t *testing.T) {
	for name, values := range map[string][]string{
		"none":             nil,
		"empty":            {""},
		"two":              {parent, parent},
		"short":            {parent[:54]},
		"long":             {parent + "-more"},
		"zero trace":       {"00-00000000000000000000000000000000-b7ad6b7169203331-01"},
		"zero span":        {"00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01"},
		"upper case":       {strings.ToUpper(parent)},
		"no hex":           {strings.Replace(parent, "0af", "xyz", 1)},
		"version ff":       {"ff" + parent[2:]},
		"new line":         {parent + "\n"},
		"header injection": {parent + "\r\nX-Evil: 1"},
		"a megabyte":       {strings.Repeat("0", 1<<20)},
		"not unicode":      {"\xff\xfe"},
	} {
		ctx := accept(t.Context(), values...)
		if ID(ctx) != "" || Traceparent(ctx) != "" {
			t.Errorf("%s: %q", name, Traceparent(ctx))
		}
	}
	// A later version may have more behind what we know (§4.3 of the standard); it is not
	// passed on.
	ctx := accept(t.Context(), "cc"+parent[2:]+"-what-the-future-will-be-like")
	if got := Traceparent(ctx); got != parent {
		t.Errorf("a later version became %q", got)
	}
}

func TestWithoutAnEndpointATraceIsPassedOnAsItIs(t *testing.T) {
	tracer, err := New(t.Context(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, span := tracer.Start(accept(t.Context(), parent), "x", Internal, time.Time{})
	if got := Traceparent(ctx); got != parent || ID(ctx) != traceID || span.Records() || tracer.Records() {
		t.Errorf("%q, records %t", got, span.Records())
	}
	span.Set(Text("a", "b"))
	span.Rename("y")
	span.End()
	Span{}.End()
	if err := tracer.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestRefusedSpansAreTriedAgainOnlyWhereThatMayHelp(t *testing.T) {
	for _, tt := range []struct {
		name  string
		first int // status of the first answer
		asked int
		lost  bool
	}{
		{"unavailable", 503, 2, false},
		{"too many", 429, 2, false},
		{"wrong key", 401, 1, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newReceiver(t)
			r.answer = func(n int) int {
				if n == 1 {
					return tt.first
				}
				return http.StatusOK
			}
			var failed error
			var log strings.Builder
			tracer := r.tracer(t, func(o *Options) {
				o.Sent = func(_ int, err error) { failed = err }
				o.Logger = slog.New(slog.NewTextHandler(&log, nil))
			})
			_, span := tracer.Start(t.Context(), "x", Internal, time.Time{})
			span.End()
			if err := tracer.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			if r.asked != tt.asked || (failed != nil) != tt.lost || strings.Contains(log.String(), "spans are lost") != tt.lost {
				t.Errorf("asked %d times, error %v, log %s", r.asked, failed, &log)
			}
		})
	}
}

// The headers are a key, perhaps: an answer that points elsewhere does not get them there.
func TestRedirectIsNotFollowed(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		t.Errorf("asked with %v", req.Header)
	}))
	defer elsewhere.Close()
	for _, status := range []int{301, 302, 303, 307, 308} {
		server := httptest.NewServer(http.RedirectHandler(elsewhere.URL, status))
		var headers Headers
		if err := headers.UnmarshalText([]byte("x-key=secret")); err != nil {
			t.Fatal(err)
		}
		var failed error
		tracer, err := New(t.Context(), Options{Endpoint: server.URL, Headers: headers, Sent: func(_ int, err error) { failed = err }})
		if err != nil {
			t.Fatal(err)
		}
		_, span := tracer.Start(t.Context(), "x", Internal, time.Time{})
		span.End()
		if err := tracer.Close(t.Context()); err != nil || failed == nil {
			t.Errorf("%d: %v, %v", status, err, failed)
		}
		server.Close()
	}
}

// A receiver that takes the connection and says nothing holds nobody up, and Close no
// longer than it is allowed to.
func TestReceiverThatHangsHoldsNobodyUp(t *testing.T) {
	arrived, hang := make(chan struct{}, 100), make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		arrived <- struct{}{}
		select {
		case <-hang:
		case <-req.Context().Done():
		}
	}))
	defer server.Close()
	defer close(hang)
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "1")
	lost := make(chan int, 100)
	tracer, err := New(t.Context(), Options{Endpoint: server.URL, Sent: func(n int, err error) {
		if err != nil {
			lost <- n
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	end := func() {
		_, span := tracer.Start(t.Context(), "x", Internal, time.Time{})
		span.End()
	}
	end()
	<-arrived // the sender hangs from here on
	for range 10_000 {
		end() // more than the queue takes: were one waited for, this would never end
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := tracer.Close(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Close: %v", err)
	}
	<-lost
}

func TestHeadersShowThemselvesToNobody(t *testing.T) {
	var h Headers
	if err := h.UnmarshalText([]byte("authorization=secret")); err != nil || !h.IsSet() {
		t.Fatal(err)
	}
	text, err := json.Marshal(map[string]any{"h": h, "p": &h})
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "h", h)
	for _, shown := range []string{fmt.Sprint(h), fmt.Sprintf("%+v %#v %s %q", h, h, h, h), fmt.Sprintf("%v", &h), string(text), log.String()} {
		if strings.Contains(shown, "secret") {
			t.Errorf("shown: %s", shown)
		}
	}
	for _, wrong := range []string{"secret", "a b=secret", "a=sec%zzret", "a=sec\nret=secret", "a=secret%0d%0ax", "Host=secret", "=secret"} {
		if err := h.UnmarshalText([]byte(wrong)); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: %v", wrong, err)
		}
	}
}

// A text that protobuf refuses would cost the batch, and so other spans.
func TestNoTextCostsTheBatch(t *testing.T) {
	r := newReceiver(t)
	tracer := r.tracer(t)
	_, other := tracer.Start(t.Context(), "other", Internal, time.Time{})
	other.End()
	long := strings.Repeat("x", maxValueBytes-1) + "\u00e9"
	for _, text := range []string{"\xff\xfe", long, long + "\xff", strings.Repeat("\u00e9", maxValueBytes)} {
		_, span := tracer.Start(t.Context(), "hostile", Internal, time.Time{}, Text("at start", text))
		span.Set(Text("later", text))
		span.Fail(text)
		span.End()
	}
	if err := tracer.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(r.spans) != 5 {
		t.Fatalf("%d spans of 5 have come", len(r.spans))
	}
	for _, span := range r.spans {
		texts := []string{span.GetStatus().GetMessage()}
		for _, a := range span.GetAttributes() {
			texts = append(texts, a.GetValue().GetStringValue())
		}
		for _, text := range texts {
			if len(text) > maxValueBytes {
				t.Errorf("a text has %d bytes", len(text))
			}
		}
	}
}
