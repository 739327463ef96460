package httpapi

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"carrel/protocol"
)

// benchReader gives left events in batches of size.
type benchReader struct {
	batch []protocol.Event
	seq   int64
	left  int
}

func (r *benchReader) Next(context.Context) ([]protocol.Event, error) {
	if r.left == 0 {
		return nil, io.EOF
	}
	n := min(r.left, len(r.batch))
	for i := range n {
		r.seq++
		r.batch[i].Seq = r.seq
	}
	r.left -= n
	return r.batch[:n], nil
}

func (*benchReader) Close() {}

func benchBatch(size int) []protocol.Event {
	batch := make([]protocol.Event, size)
	for i := range batch {
		batch[i] = event(int64(i+1), `{"text":"`+strings.Repeat("word ", 8)+`"}`)
	}
	return batch
}

// BenchmarkSSE sends events over a loopback connection to a client that throws
// them away. "bare" is a handler that only writes and flushes frames made
// before: what the connection itself costs.
func BenchmarkSSE(b *testing.B) {
	for _, size := range []int{1, 8, 64} {
		name := "batch=" + string(rune('0'+size/10)) + string(rune('0'+size%10))
		b.Run("carrel/"+name, func(b *testing.B) {
			f := newFake()
			f.onEvents = func(context.Context, string, int64) (EventReader, error) {
				return &benchReader{batch: benchBatch(size), left: b.N}, nil
			}
			benchStream(b, New(f, Options{}))
		})
		b.Run("bare/"+name, func(b *testing.B) {
			var frames []byte
			for _, e := range benchBatch(size) {
				frames, _ = appendEvent(frames, e)
			}
			benchStream(b, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "text/event-stream")
				ctl := http.NewResponseController(w)
				for left := b.N; left > 0; left -= size {
					_, err := w.Write(frames[:len(frames)*min(size, left)/size])
					if err != nil || ctl.Flush() != nil {
						return
					}
				}
			}))
		})
	}
}

func benchStream(b *testing.B, h http.Handler) {
	server := httptest.NewServer(h)
	defer server.Close()
	req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, server.URL+eventsPath, nil)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	resp, err := server.Client().Do(req)
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close()
	n, err := io.Copy(io.Discard, resp.Body)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
	b.SetBytes(n / int64(b.N))
}

func BenchmarkAppendEvent(b *testing.B) {
	e := benchBatch(1)[0]
	b.Run("own", func(b *testing.B) {
		var buf []byte
		for b.Loop() {
			buf, _ = appendEvent(buf[:0], e)
		}
	})
	b.Run("encoding-json", func(b *testing.B) {
		var buf bytes.Buffer
		enc := json.NewEncoder(&buf)
		for b.Loop() {
			buf.Reset()
			if err := enc.Encode(e); err != nil {
				b.Fatal(err)
			}
		}
	})
}
