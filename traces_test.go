package carrel

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"carrel/internal/tracing"
	"carrel/protocol"
)

// What a worker tells of its tools is its word: it names no span, and makes no more of
// them, and no larger ones, than are allowed.
func TestWorkerCannotFloodTheTrace(t *testing.T) {
	var (
		mu    sync.Mutex
		spans []*tracepb.Span
	)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		var data tracepb.TracesData
		if err == nil {
			err = proto.Unmarshal(body, &data)
		}
		if err != nil {
			t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		for _, rs := range data.GetResourceSpans() {
			for _, ss := range rs.GetScopeSpans() {
				spans = append(spans, ss.GetSpans()...)
			}
		}
	}))
	defer server.Close()
	tracer, err := tracing.New(t.Context(), tracing.Options{Endpoint: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	o := &Orchestrator{tracer: tracer}
	ctx, run := tracer.Start(t.Context(), "run", tracing.Internal, time.Time{})
	tools := o.traceTools(ctx)
	tell := func(kind protocol.EventType, data any) {
		text, err := json.Marshal(data)
		if err != nil {
			t.Fatal(err)
		}
		tools.see(protocol.EventParams{Type: kind, Data: text})
	}
	for i := range 2 * maxTools {
		id := fmt.Sprint(i)
		tell(protocol.EventToolCallStart, protocol.ToolCallStart{ID: id, Name: strings.Repeat("evil\n", 100) + id})
		tell(protocol.EventToolCallResult, protocol.ToolCallResult{ID: id, IsError: true})
		tell(protocol.EventToolCallResult, protocol.ToolCallResult{ID: id}) // twice
	}
	for i := range 2 * maxOpenTools { // that never end
		tell(protocol.EventToolCallStart, protocol.ToolCallStart{ID: fmt.Sprint("open", i), Name: "bash"})
	}
	if len(tools.open) != maxOpenTools {
		t.Errorf("%d calls are kept", len(tools.open))
	}
	tell(protocol.EventToolCallStart, protocol.ToolCallStart{ID: strings.Repeat("x", 1<<20), Name: "bash"})
	tools.see(protocol.EventParams{Type: protocol.EventToolCallStart, Data: []byte(`{"id":[1]}`)})
	// As where the worker is gone, and the host says so.
	(&recorder{tools: tools}).noteEnd(t.Context(), protocol.EventRunError, []byte(`{"code":"worker_crashed"}`))
	if len(tools.open) != 0 || tools.made != maxTools {
		t.Errorf("%d are open, %d were made", len(tools.open), tools.made)
	}
	run.End()
	if err := tracer.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(spans) != maxTools+1 {
		t.Errorf("%d spans", len(spans))
	}
	for _, span := range spans {
		if span.GetName() != "tool" && span.GetName() != "run" {
			t.Fatalf("a span is called %q", span.GetName())
		}
		if size := proto.Size(span); size > 1000 {
			t.Fatalf("a span has %d bytes", size)
		}
	}
}

// The name of a tool is a piece of an event of megabytes, of which nothing else is kept
// until the span is sent.
func TestSpansOfToolsKeepNoMore(t *testing.T) {
	tracer, err := tracing.New(t.Context(), tracing.Options{Endpoint: "http://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, run := tracer.Start(t.Context(), "run", tracing.Internal, time.Time{})
	tools := (&Orchestrator{tracer: tracer}).traceTools(ctx)
	name := strings.Repeat("x", 1<<20)
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	for i := range maxOpenTools {
		data := fmt.Appendf(nil, `{"id":"%d","name":"%s"}`, i, name)
		tools.see(protocol.EventParams{Type: protocol.EventToolCallStart, Data: data})
	}
	open := heap() - before
	tools.close()
	if sent := heap() - before; open > 8<<20 || sent > 8<<20 {
		t.Errorf("of %d names of 1 MiB %d bytes are kept while they are open, then %d", maxOpenTools, open, sent)
	}
	run.End()
	ended, end := context.WithCancel(t.Context())
	end()
	_ = tracer.Close(ended) // nobody is there
	runtime.KeepAlive(name)
}
