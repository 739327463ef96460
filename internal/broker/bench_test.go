package broker

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// BenchmarkStreamedChunk sends one delta at a time and measures from before the
// upstream writes it until its reader has it: by a plain client, and through
// broker, socketpair and door. The difference of the medians is what the broker
// adds to each chunk.
func BenchmarkStreamedChunk(b *testing.B) {
	delta := "event: content_block_delta\ndata: " +
		`{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"` + strings.Repeat("word ", 8) + "\"}}\n\n"
	turns := make(chan chan time.Time)
	upstream := func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "text/event-stream")
		before, _, _ := strings.Cut(wholeStream, "event: ping")
		_, _ = io.WriteString(w, before)
		flush := http.NewResponseController(w)
		_ = flush.Flush()
		for sent := range turns {
			sent <- time.Now()
			_, _ = io.WriteString(w, delta)
			_ = flush.Flush()
		}
	}
	for _, way := range []string{"direct", "broker"} {
		b.Run(way, func(b *testing.B) {
			turns = make(chan chan time.Time)
			send, url := chunkWay(b, way, upstream)
			out := request(b, b.Context(), "{}")
			if url != "" {
				out = out.Clone(context.WithoutCancel(b.Context()))
				out.URL.Host = strings.TrimPrefix(url, "http://")
			}
			resp, err := send.RoundTrip(out)
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = resp.Body.Close() }()
			lines := bufio.NewReader(resp.Body)
			for skip := 6; skip > 0; skip-- { // message_start, content_block_start
				if _, err := lines.ReadString('\n'); err != nil {
					b.Fatal(err)
				}
			}
			took := make([]time.Duration, 0, b.N)
			sent := make(chan time.Time, 1)
			for b.Loop() {
				turns <- sent
				for range 3 {
					if _, err := lines.ReadString('\n'); err != nil {
						b.Fatal(err)
					}
				}
				took = append(took, time.Since(<-sent))
			}
			close(turns)
			slices.Sort(took)
			for _, p := range []int{50, 99} {
				b.ReportMetric(float64(took[min(len(took)-1, len(took)*p/100)])/1e3, "µs-p"+strconv.Itoa(p))
			}
		})
	}
}

// chunkWay is a way to the upstream, and its address where that is the way's.
func chunkWay(b *testing.B, way string, upstream http.HandlerFunc) (send http.RoundTripper, url string) {
	b.Helper()
	if way == "broker" {
		return newRig(b, upstream).door, ""
	}
	server := httptest.NewServer(upstream)
	b.Cleanup(server.Close)
	t := &http.Transport{}
	b.Cleanup(t.CloseIdleConnections)
	return t, server.URL
}

// BenchmarkFigures reads a delta as it goes by.
func BenchmarkFigures(b *testing.B) {
	delta := []byte("event: content_block_delta\ndata: " +
		`{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"` + strings.Repeat("word ", 8) + "\"}}\n\n")
	s, g := &streamReader{}, keyGuard{key: []byte(strings.Repeat("k", 108))}
	b.ReportAllocs()
	for b.Loop() {
		s.read(delta)
		g.pass(delta, false)
	}
}
