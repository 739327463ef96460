package carrel

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"carrel/internal/broker"
	"carrel/internal/httpapi"
	"carrel/internal/logline"
	"carrel/internal/metrics"
	"carrel/internal/pool"
	"carrel/internal/tracing"
	"carrel/protocol"
)

// flushTime is how long a shutdown waits for the last spans to be taken.
const flushTime = 5 * time.Second

func (o *Orchestrator) openTracer(ctx context.Context) (err error) {
	o.tracer, err = tracing.New(ctx, tracing.Options{
		Endpoint: o.cfg.OTLPEndpoint,
		Headers:  o.cfg.OTLPHeaders,
		Version:  o.version,
		Logger:   o.log,
		Sent:     o.metrics.SpansSent,
	})
	return err
}

func (o *Orchestrator) closeTracer(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), flushTime)
	defer cancel()
	if err := o.tracer.Close(ctx); err != nil {
		o.log.WarnContext(ctx, "the last spans are lost", "error", err)
	}
}

// entered makes a request, whose caller has signed in, a part of the trace that it names.
func (o *Orchestrator) entered(ctx context.Context, pattern string, h http.Header) context.Context {
	if !strings.HasPrefix(pattern, "/v1/") {
		return ctx // who looks whether we live wants no trace of it
	}
	ctx, _ = o.tracer.Start(tracing.Accept(ctx, h), "request", tracing.Server, time.Time{}) // answered ends it
	logline.Fill(ctx, logline.Fields{Trace: tracing.ID(ctx)})
	return ctx
}

// traceAnswer ends a request's span.
func traceAnswer(ctx context.Context, a httpapi.Answered) {
	span := tracing.Of(ctx)
	if !span.Records() {
		return
	}
	span.Rename(a.Method + " " + a.Pattern) // a route's, or there would be no span
	span.Set(
		tracing.Text("http.request.method", a.Method), tracing.Text("http.route", a.Pattern),
		tracing.Number("http.response.status_code", int64(a.Status)),
	)
	if a.Status >= http.StatusInternalServerError {
		span.Fail(http.StatusText(a.Status))
	}
	span.End()
}

// traceRun begins the span of a run or a command, within that of whoever asked for it.
func (o *Orchestrator) traceRun(ctx context.Context, name string, g *goingRun) context.Context {
	ctx, g.span = o.tracer.Start(ctx, name, tracing.Internal, time.Time{})
	logline.Fill(ctx, logline.Fields{Trace: tracing.ID(ctx)})
	if g.span.Records() {
		g.span.Set(tracing.Text("carrel.run", g.about.RunID), tracing.Text("carrel.user", logline.User(g.about.UserID)))
		if g.about.SessionID != "" {
			g.span.Set(tracing.Text("session.id", g.about.SessionID), tracing.Text("gen_ai.agent.name", g.about.Agent))
		}
	}
	return ctx
}

// endTrace ends it; ending is as in metrics.
func (g *goingRun) endTrace(ending string, usage protocol.Usage) {
	if g.span.Records() {
		g.span.Set(tracing.Text("carrel.ending", ending))
		if usage != (protocol.Usage{}) {
			g.span.Set(
				tracing.Number("gen_ai.usage.input_tokens", usage.InputTokens), tracing.Number("gen_ai.usage.output_tokens", usage.OutputTokens),
				tracing.Amount("carrel.cost_usd", usage.CostUSD),
			)
		}
		if ending != metrics.Finished {
			g.span.Fail(ending)
		}
	}
	g.span.End()
}

// traceWait tells of the wait for a worker, and of its start where that was waited for.
func (o *Orchestrator) traceWait(ctx context.Context, asked, turn time.Time, lease *pool.Lease) {
	if !o.tracer.Records() {
		return
	}
	o.tracer.Tell(ctx, "queue", tracing.Internal, asked, turn)
	if lease == nil {
		return
	}
	tracing.Of(ctx).Set(tracing.Number("carrel.worker", int64(lease.Worker())))
	s := lease.Start()
	if !s.Ended.After(asked) {
		return
	}
	within := o.tracer.Tell(ctx, "worker start", tracing.Internal, s.Began, s.Ended,
		tracing.Text("carrel.start.kind", string(s.Kind)), tracing.Number("carrel.worker", int64(s.Worker)))
	at := s.Began // the steps follow one another; what lies between them is told as if it came last
	for _, step := range s.Steps {
		o.tracer.Tell(within, "start step: "+step.Step, tracing.Internal, at, at.Add(step.Took))
		at = at.Add(step.Took)
	}
}

// traceModel begins the span of a request that the broker lets out. The model API gets
// to know of the trace where the operator wants that.
func (o *Orchestrator) traceModel(runID string) (traceparent string, end func(broker.Exchange)) {
	if !o.tracer.Records() && !o.cfg.TraceModelAPI {
		return "", nil
	}
	o.mu.Lock()
	g := o.going[runID]
	o.mu.Unlock()
	if g == nil || g.ctx == nil {
		return "", nil
	}
	ctx, span := o.tracer.Start(g.ctx, "model request", tracing.Client, time.Time{})
	if o.cfg.TraceModelAPI {
		traceparent = tracing.Traceparent(ctx)
	}
	return traceparent, func(x broker.Exchange) {
		span.Set(
			tracing.Text("gen_ai.response.model", x.Model), tracing.Number("http.response.status_code", int64(x.Status)),
			tracing.Number("gen_ai.usage.input_tokens", x.Usage.InputTokens), tracing.Number("gen_ai.usage.output_tokens", x.Usage.OutputTokens),
			tracing.Amount("carrel.cost_usd", x.Usage.CostUSD),
		)
		if x.Cut || x.Status/100 != 2 {
			span.Fail("no whole answer")
		}
		span.End()
	}
}

const (
	// maxOpenTools and maxTools bound the spans of a run's tools: a worker that was taken
	// over may tell of as many calls as it likes.
	maxOpenTools, maxTools = 64, 1000
	maxToolID              = 256
)

// toolSpans makes spans of what a run's events tell of its tools. A nil one makes none.
type toolSpans struct {
	tracer *tracing.Tracer
	ctx    context.Context //nolint:containedctx // of the run's span
	open   map[string]openTool
	made   int
}

type openTool struct {
	name  tracing.Attr
	began time.Time
}

func (o *Orchestrator) traceTools(ctx context.Context) *toolSpans {
	if !tracing.Of(ctx).Records() {
		return nil
	}
	return &toolSpans{tracer: o.tracer, ctx: ctx, open: make(map[string]openTool)}
}

func (t *toolSpans) see(ev protocol.EventParams) {
	if t == nil {
		return
	}
	switch ev.Type { //nolint:exhaustive // the others are of no tool's
	case protocol.EventToolCallStart:
		var call protocol.ToolCallStart
		if json.Unmarshal(ev.Data, &call) == nil && len(call.ID) <= maxToolID && len(t.open) < maxOpenTools {
			t.open[call.ID] = openTool{tracing.Text("gen_ai.tool.name", call.Name), time.Now()}
		}
	case protocol.EventToolCallResult:
		var result struct {
			ID      string `json:"id"`
			IsError bool   `json:"is_error"`
		}
		if json.Unmarshal(ev.Data, &result) == nil {
			t.end(result.ID, result.IsError)
		}
	}
}

// close ends the calls that the run has left open: the one perhaps that it ended of.
func (t *toolSpans) close() {
	if t == nil {
		return
	}
	for id := range t.open {
		t.end(id, true)
	}
}

func (t *toolSpans) end(id string, failed bool) {
	call, ok := t.open[id]
	delete(t.open, id)
	if !ok || t.made >= maxTools {
		return
	}
	t.made++
	_, span := t.tracer.Start(t.ctx, "tool", tracing.Internal, call.began, call.name)
	if failed {
		span.Fail("error")
	}
	span.End()
}
