// Package tracing makes spans of what the daemon does and sends them to an OTLP endpoint,
// where one is configured.
//
//	request "POST /v1/execute"            the caller's traceparent is its parent
//	 └─ run
//	     ├─ queue
//	     ├─ worker start                  where the run had to wait for one
//	     │   └─ start step: clone, …, initialize
//	     ├─ model request                 each that the broker has let out
//	     └─ tool                          each call
//
// Without an endpoint no span is made, and a caller's traceparent is passed on as it is.
//
// Nothing waits for the endpoint: spans stand in a bounded queue, and what finds it full
// is dropped. What callers, workers and models name becomes an attribute of bounded
// length, never a span's name.
//
// # Goroutines
//
// A Tracer with an endpoint has one goroutine, the SDK's, which sends; Close ends it.
package tracing

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// Header is W3C's header of a trace: "00-TRACE-SPAN-FLAGS".
const Header = "Traceparent"

// maxValueBytes bounds each text of a span but its name.
const maxValueBytes = 256

// Options say where spans go.
type Options struct {
	// Endpoint is the base of an OTLP/HTTP receiver, "http://127.0.0.1:4318": spans go to
	// its /v1/traces. "" = nowhere.
	Endpoint string
	Headers  Headers // of each request there
	Version  string  // of the daemon
	Logger   *slog.Logger
	// Sent is told of spans that were sent or, with an error, given up; nil = nobody
	// wants to know.
	Sent func(spans int, err error)
}

// Tracer makes spans. It is safe for concurrent use.
type Tracer struct {
	tracer trace.Tracer
	sender sdk.SpanProcessor // nil = no span is made
	client *client
}

// New makes a tracer; Close ends it. Besides its options the environment is asked, as
// OpenTelemetry has it: OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES, OTEL_TRACES_SAMPLER
// and OTEL_BSP_….
func New(ctx context.Context, o Options) (*Tracer, error) {
	if o.Endpoint == "" {
		return &Tracer{tracer: noop.NewTracerProvider().Tracer("")}, nil
	}
	about, err := resource.New(ctx, // the later wins
		resource.WithTelemetrySDK(),
		resource.WithAttributes(attribute.String("service.name", "carrel"), attribute.String("service.version", o.Version)),
		resource.WithFromEnv(),
	)
	if err != nil && about == nil {
		return nil, err
	}
	t := &Tracer{client: newClient(ctx, o)}
	exporter, err := otlptrace.New(ctx, t.client)
	if err != nil {
		return nil, err
	}
	t.sender = sdk.NewBatchSpanProcessor(exporter)
	provider := sdk.NewTracerProvider(
		sdk.WithSpanProcessor(t.sender),
		sdk.WithResource(about),
	)
	t.tracer = provider.Tracer("carrel", trace.WithInstrumentationVersion(o.Version))
	return t, nil
}

// Close sends what is left, until ctx ends; then it is lost, and the error says so.
func (t *Tracer) Close(ctx context.Context) error {
	if t == nil || t.sender == nil {
		return nil
	}
	stop := context.AfterFunc(ctx, t.client.end) // every try then fails at once
	defer stop()
	err := t.sender.Shutdown(ctx) // not the provider's, which does nothing where ctx has ended
	<-t.client.stopped
	t.client.end()
	if err != nil {
		return fmt.Errorf("send the last spans: %w", err)
	}
	return nil
}

// Records reports whether spans are made at all.
func (t *Tracer) Records() bool { return t.sender != nil }

// Accept takes the trace that a request belongs to from its headers, if they name a
// valid one. Everything else in them is nothing.
func Accept(ctx context.Context, h http.Header) context.Context {
	given := h.Values(Header)
	if len(given) != 1 {
		return ctx // none, or nobody knows which (W3C Trace Context §3.2)
	}
	return propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{"traceparent": given[0]})
}

// Traceparent is the header that makes what is asked next a part of ctx's trace; "" if
// ctx is in none.
func Traceparent(ctx context.Context) string {
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	return carrier["traceparent"]
}

// ID is the trace's id in hex; "" if ctx is in none.
func ID(ctx context.Context) string {
	if sc := trace.SpanContextFromContext(ctx); sc.HasTraceID() {
		return sc.TraceID().String()
	}
	return ""
}

// Carry gives ctx the span of from.
func Carry(ctx, from context.Context) context.Context {
	return trace.ContextWithSpan(ctx, trace.SpanFromContext(from))
}

// Kind is which side of a call a span is.
type Kind = trace.SpanKind

// The kinds.
const (
	Internal Kind = trace.SpanKindInternal
	Server   Kind = trace.SpanKindServer
	Client   Kind = trace.SpanKindClient
)

// Attr is an attribute of a span.
type Attr = attribute.KeyValue

// Text makes an attribute of the first [maxValueBytes] of value.
func Text(key, value string) Attr { return attribute.String(key, bounded(value)) }

// bounded is what a span holds of a text, whoever wrote that. It is valid UTF-8, or
// protobuf would refuse the whole batch, other spans with it; and it is no piece of a
// longer text, which it would keep in memory until it is sent. OpenTelemetry's own limit
// does neither.
func bounded(text string) string {
	if len(text) > maxValueBytes {
		text = strings.Clone(text[:maxValueBytes])
	}
	return strings.ToValidUTF8(text, "")
}

// Number makes an attribute.
func Number(key string, value int64) Attr { return attribute.Int64(key, value) }

// Amount makes an attribute.
func Amount(key string, value float64) Attr { return attribute.Float64(key, value) }

// Span is something going on. The zero value is none.
type Span struct{ span trace.Span }

// Start begins a span within ctx's, which began at the time at (zero = now). End it.
func (t *Tracer) Start(ctx context.Context, name string, kind Kind, at time.Time, attrs ...Attr) (context.Context, Span) {
	options := []trace.SpanStartOption{trace.WithSpanKind(kind), trace.WithAttributes(attrs...)}
	if !at.IsZero() {
		options = append(options, trace.WithTimestamp(at))
	}
	ctx, span := t.tracer.Start(ctx, name, options...)
	return ctx, Span{span}
}

// Tell makes a span within ctx's of what is over, and returns the context within it.
func (t *Tracer) Tell(ctx context.Context, name string, kind Kind, began, ended time.Time, attrs ...Attr) context.Context {
	if !t.Records() {
		return ctx
	}
	ctx, span := t.Start(ctx, name, kind, began, attrs...)
	span.span.End(trace.WithTimestamp(ended))
	return ctx
}

// Of is the span of ctx.
func Of(ctx context.Context) Span { return Span{trace.SpanFromContext(ctx)} }

// Rename changes the name, where that is known only later.
func (s Span) Rename(name string) { s.span.SetName(name) }

// Set adds attributes.
func (s Span) Set(attrs ...Attr) { s.span.SetAttributes(attrs...) }

// Fail marks the span as one of something that has failed.
func (s Span) Fail(why string) { s.span.SetStatus(codes.Error, bounded(why)) }

// Records reports whether anybody will see the span.
func (s Span) Records() bool { return s.span != nil && s.span.IsRecording() }

// End ends the span.
func (s Span) End() {
	if s.span != nil {
		s.span.End()
	}
}
