// Package anthropictest is a Messages API that says what a script tells it to:
// the real wire format, in JSON and as a stream, over real connections, with the
// rules of the real one on what a request may look like. Tests and the demo run
// everything above the network against it, through the real SDK.
package anthropictest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// maxRequestBytes is the Messages API's own limit of a request.
const maxRequestBytes = 32 << 20

// T is what a server needs of a test; *testing.T is one.
type T interface {
	Helper()
	Cleanup(func())
	Errorf(format string, args ...any)
}

// Turn is one step of a script: a request that is expected, and its answer.
type Turn struct {
	// Expect tells what is wrong with a request, or nil. Nil expects nothing.
	Expect func(*Request) error
	Reply  Reply
}

// Options of a server; the zero value is a good one.
type Options struct {
	// Script is answered in order, one turn a request.
	Script []Turn
	// Otherwise answers what the script does not. Without it such a request is
	// a failure, of the test and of the request.
	Otherwise func(*Request) Reply
	// Key is what a request's x-api-key must be; "" takes any, or none.
	Key string
}

// Server is a running one. It is safe for concurrent use. Its goroutines, one
// for the listener and one for each connection, end with Close.
type Server struct {
	URL string // "http://127.0.0.1:port"

	options Options
	fail    func(format string, args ...any)
	http    *http.Server
	serving sync.WaitGroup

	mu       sync.Mutex
	closed   bool
	next     int // of the script
	requests []*Request
}

// New starts a server that a test ends. A fault of the script fails the test.
func New(t T, o Options) *Server {
	t.Helper()
	s, err := Start(o, t.Errorf)
	if err != nil {
		t.Errorf("start the scripted Messages API: %v", err)
		return &Server{}
	}
	t.Cleanup(func() {
		s.Close()
		if left := s.Left(); left > 0 {
			t.Errorf("%d turns of the script were never asked for", left)
		}
	})
	return s
}

// Start starts a server on a free port of loopback, for whoever is no test. fail
// is told of faults of the script.
func Start(o Options, fail func(format string, args ...any)) (*Server, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &Server{URL: "http://" + listener.Addr().String(), options: o, fail: fail}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/messages", s.messages)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		sendError(w, Reply{Status: http.StatusNotFound, Error: "not_found_error", Message: r.Method + " " + r.URL.Path + ": not found"})
	})
	s.http = &http.Server{Handler: s.counted(mux), ReadHeaderTimeout: time.Minute}
	s.serving.Go(func() {
		if err := s.http.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			s.fail("the scripted Messages API ended: %v", err)
		}
	})
	return s, nil
}

// Close ends every connection and waits for what served them.
func (s *Server) Close() {
	if s.http == nil {
		return
	}
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	if err := s.http.Close(); err != nil {
		s.fail("close the scripted Messages API: %v", err)
	}
	s.serving.Wait()
}

// Requests are all that came, in order.
func (s *Server) Requests() []*Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*Request(nil), s.requests...)
}

// Left is how many turns of the script nobody has asked for yet.
func (s *Server) Left() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.options.Script) - s.next
}

// counted makes Close wait for handlers: http.Server.Close does not.
func (s *Server) counted(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		closed := s.closed
		if !closed {
			s.serving.Add(1)
		}
		s.mu.Unlock()
		if closed {
			return
		}
		defer s.serving.Done()
		h.ServeHTTP(w, r)
	})
}

func (s *Server) messages(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequestBytes))
	if err != nil {
		sendError(w, Reply{Status: http.StatusRequestEntityTooLarge, Error: "request_too_large", Message: "Request exceeds the maximum size"})
		return
	}
	q := &Request{Header: r.Header.Clone(), Body: body}
	reply, ok := refuse(q, s.options.Key)
	if ok {
		reply = s.reply(q)
	} else {
		s.record(q)
	}
	if reply.Status != 0 {
		sendError(w, reply)
		return
	}
	if !q.Stream {
		sendJSON(w, q, reply)
		return
	}
	sendStream(r.Context(), w, q, reply)
}

func (s *Server) record(q *Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests = append(s.requests, q)
}

// reply takes the script's next turn for a request.
func (s *Server) reply(q *Request) Reply {
	s.mu.Lock()
	s.requests = append(s.requests, q)
	n := s.next
	if n == len(s.options.Script) {
		s.mu.Unlock()
		if s.options.Otherwise != nil {
			return s.options.Otherwise(q)
		}
		s.fail("request %d is more than the script has turns:\n%s", n+1, q.Body)
		return Reply{Status: http.StatusBadRequest, Error: "invalid_request_error", Message: "the script is over"}
	}
	s.next++
	s.mu.Unlock()

	turn := s.options.Script[n]
	if turn.Expect != nil {
		if err := turn.Expect(q); err != nil {
			s.fail("request %d: %v\n%s", n+1, err, q.Body)
			return Reply{Status: http.StatusBadRequest, Error: "invalid_request_error", Message: "not in the script: " + err.Error()}
		}
	}
	return turn.Reply
}

// sendError answers with the API's error form.
func sendError(w http.ResponseWriter, r Reply) {
	for name, value := range r.Header {
		w.Header().Set(name, value)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Request-Id", requestID)
	w.WriteHeader(r.Status)
	_ = json.NewEncoder(w).Encode(errorBody(r.Error, r.Message)) // the caller may have left
}

func errorBody(kind, message string) any {
	return map[string]any{
		"type":       "error",
		"error":      map[string]string{"type": kind, "message": message},
		"request_id": requestID,
	}
}

const requestID = "req_011CScripted"

// Say is the script of one answer that ends the turn.
func Say(text ...string) Turn { return Turn{Reply: Reply{Blocks: []Block{Text(text...)}}} }

// Fail is an error answer. after, if not "", is its Retry-After.
func Fail(status int, kind, message, after string) Turn {
	r := Reply{Status: status, Error: kind, Message: message}
	if after != "" {
		r.Header = map[string]string{"Retry-After": after}
	}
	return Turn{Reply: r}
}

// Overloaded is the API's 529.
func Overloaded() Turn { return Fail(529, "overloaded_error", "Overloaded", "") }

// RateLimited is the API's 429; after is its Retry-After in seconds.
func RateLimited(after int) Turn {
	return Fail(http.StatusTooManyRequests, "rate_limit_error", "This request would exceed your rate limit", fmt.Sprint(after))
}
