package anthropictest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

func sendJSON(w http.ResponseWriter, q *Request, r Reply) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Request-Id", requestID)
	_ = json.NewEncoder(w).Encode(r.message(q, true)) // the caller may have left
}

// sendStream plays an answer as server-sent events, with its faults.
func sendStream(ctx context.Context, w http.ResponseWriter, q *Request, r Reply) {
	w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	w.Header().Set("Cache-Control", "no-cache")
	w.Header().Set("Request-Id", requestID)
	w.WriteHeader(http.StatusOK)
	s := stream{ctx: ctx, w: w, flush: http.NewResponseController(w), bytewise: r.Fault.Bytewise}

	events := r.events(q)
	for i, e := range events {
		if r.Fault.Hold != nil && e.kind == "message_delta" {
			select {
			case <-r.Fault.Hold:
			case <-ctx.Done():
				return
			}
		}
		if !s.send(e) {
			return
		}
		if r.Fault.Ping && !s.send(event{"ping", map[string]any{}}) {
			return
		}
		switch i + 1 {
		case r.Fault.CutAfter:
			panic(http.ErrAbortHandler) // net/http's way to break the connection off
		case r.Fault.EndAfter:
			return
		case len(events):
			return
		}
		if !s.wait(r.Fault.Gap) {
			return
		}
	}
}

type stream struct {
	ctx      context.Context // of the request
	w        http.ResponseWriter
	flush    *http.ResponseController
	bytewise bool
}

// send writes one event; false tells that the caller has left.
func (s *stream) send(e event) bool {
	e.data["type"] = e.kind
	var data bytes.Buffer
	encoder := json.NewEncoder(&data)
	encoder.SetEscapeHTML(false) // nor does the API
	if err := encoder.Encode(e.data); err != nil {
		panic("anthropictest: " + err.Error()) // of strings and numbers
	}
	frame := fmt.Appendf(nil, "event: %s\ndata: %s\n", e.kind, data.Bytes()) // the encoder ends the line
	if !s.bytewise {
		return s.write(frame)
	}
	for i := range frame {
		if !s.write(frame[i : i+1]) {
			return false
		}
	}
	return true
}

func (s *stream) write(p []byte) bool {
	if _, err := s.w.Write(p); err != nil {
		return false
	}
	return s.flush.Flush() == nil
}

func (s *stream) wait(d time.Duration) bool {
	if d <= 0 {
		return s.ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-s.ctx.Done():
		return false
	}
}
