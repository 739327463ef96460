package jsonrpc_test

import (
	"bufio"
	"context"
	"encoding/json"
	"sync"
	"syscall"
	"testing"
	"time"

	"carrel/internal/jsonrpc"
	"carrel/protocol"
)

// The bare loops are what the connection is measured against: bufio and
// encoding/json in a plain loop over the same pipes, without order between both
// directions, bounds or checks. Compare ratios of one run, not figures of two;
// on a busy machine compare cpu-ns/op, the processor time of both ends together.

// cpuTime returns the processor time this process has used.
func cpuTime(tb testing.TB) time.Duration {
	tb.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// reportCPU gives the metric, for the operations since start.
func reportCPU(b *testing.B, start time.Duration) {
	b.Helper()
	b.ReportMetric(float64(cpuTime(b)-start)/float64(b.N), "cpu-ns/op")
}

func delta(seq int64) protocol.EventParams {
	return protocol.EventParams{
		RunID: "run_01K8Z3V5X7J9M2N4P6Q8R0S1T3",
		Seq:   seq,
		Type:  protocol.EventTextDelta,
		Data:  json.RawMessage(`{"text":"a few words "}`),
	}
}

func BenchmarkNotify(b *testing.B) {
	host, worker := osPipes(b)
	all := make(chan struct{})
	sink := handler{notify: func(_ context.Context, _ string, params json.RawMessage) error {
		var p protocol.EventParams
		if err := json.Unmarshal(params, &p); err != nil {
			return err
		}
		if p.Seq == int64(b.N) {
			close(all)
		}
		return nil
	}}
	var wg sync.WaitGroup
	h := jsonrpc.NewConn(host, sink, jsonrpc.Options{})
	w := jsonrpc.NewConn(worker, handler{}, jsonrpc.Options{})
	wg.Go(func() { _ = h.Run(b.Context()) })
	wg.Go(func() { _ = w.Run(b.Context()) })
	b.ReportAllocs()
	start := cpuTime(b)
	b.ResetTimer()
	for i := range b.N {
		if err := w.Notify(b.Context(), protocol.MethodEvent, delta(int64(i+1))); err != nil {
			b.Fatal(err)
		}
	}
	<-all
	b.StopTimer()
	reportCPU(b, start)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
	_ = host.Close()
	wg.Wait()
}

func BenchmarkBareLoopNotify(b *testing.B) {
	host, worker := osPipes(b)
	type envelope struct {
		Version string               `json:"jsonrpc"`
		Method  string               `json:"method"`
		Params  protocol.EventParams `json:"params"`
	}
	var wg sync.WaitGroup
	b.ReportAllocs()
	start := cpuTime(b)
	b.ResetTimer()
	wg.Go(func() {
		r := bufio.NewReaderSize(host, 64<<10)
		for range b.N {
			line, err := r.ReadSlice('\n')
			if err != nil {
				b.Error(err)
				return
			}
			var e envelope
			if err := json.Unmarshal(line, &e); err != nil {
				b.Error(err)
				return
			}
		}
	})
	out := bufio.NewWriterSize(worker, 64<<10)
	enc := json.NewEncoder(out)
	for i := range b.N {
		if err := enc.Encode(envelope{"2.0", protocol.MethodEvent, delta(int64(i + 1))}); err != nil {
			b.Fatal(err)
		}
	}
	if err := out.Flush(); err != nil {
		b.Fatal(err)
	}
	wg.Wait()
	b.StopTimer()
	reportCPU(b, start)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
}

func BenchmarkRoundTrip(b *testing.B) {
	host, worker := osPipes(b)
	echo := onRequest(func(_ context.Context, _ string, params json.RawMessage) (any, error) {
		var p protocol.ExecOutputParams
		err := json.Unmarshal(params, &p)
		return p, err
	})
	var wg sync.WaitGroup
	h := jsonrpc.NewConn(host, handler{}, jsonrpc.Options{})
	w := jsonrpc.NewConn(worker, echo, jsonrpc.Options{})
	wg.Go(func() { _ = h.Run(b.Context()) })
	wg.Go(func() { _ = w.Run(b.Context()) })
	b.ReportAllocs()
	start := cpuTime(b)
	for b.Loop() {
		var got protocol.ExecOutputParams
		if err := h.Call(b.Context(), "echo", protocol.ExecOutputParams{Text: "a few words"}, &got); err != nil {
			b.Fatal(err)
		}
	}
	reportCPU(b, start)
	_ = host.Close()
	wg.Wait()
}

func BenchmarkBareLoopRoundTrip(b *testing.B) {
	host, worker := osPipes(b)
	type envelope struct {
		Version string                     `json:"jsonrpc"`
		ID      int                        `json:"id"`
		Method  string                     `json:"method,omitempty"`
		Params  *protocol.ExecOutputParams `json:"params,omitempty"`
		Result  *protocol.ExecOutputParams `json:"result,omitempty"`
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		in, out := bufio.NewReader(worker), json.NewEncoder(worker)
		for {
			line, err := in.ReadSlice('\n')
			if err != nil {
				return
			}
			var e envelope
			if err := json.Unmarshal(line, &e); err != nil {
				b.Error(err)
				return
			}
			if err := out.Encode(envelope{Version: "2.0", ID: e.ID, Result: e.Params}); err != nil {
				b.Error(err)
				return
			}
		}
	})
	in, out := bufio.NewReader(host), json.NewEncoder(host)
	b.ReportAllocs()
	start := cpuTime(b)
	for id := 1; b.Loop(); id++ {
		call := envelope{Version: "2.0", ID: id, Method: "echo", Params: &protocol.ExecOutputParams{Text: "a few words"}}
		if err := out.Encode(call); err != nil {
			b.Fatal(err)
		}
		line, err := in.ReadSlice('\n')
		if err != nil {
			b.Fatal(err)
		}
		var e envelope
		if err := json.Unmarshal(line, &e); err != nil {
			b.Fatal(err)
		}
	}
	reportCPU(b, start)
	_ = host.Close()
	wg.Wait()
}
