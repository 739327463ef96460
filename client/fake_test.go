package client

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"carrel/protocol"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// daemon is an http.RoundTripper that answers from a script, so that a synctest
// bubble's clock governs all there is. After the last answer it repeats it.
type daemon struct {
	answers []answer

	mu       sync.Mutex
	requests []string // "METHOD path", with Last-Event-ID behind a space
	keys     []string // the Idempotency-Key of each
	queries  []url.Values
	open     int // bodies not closed
}

type answer struct {
	status  int // 0: 200
	header  http.Header
	body    string
	bodyErr error         // after the body; io.EOF if nil
	pause   time.Duration // before each read, which then gives 16 bytes at most
	silent  bool          // after the body: nothing, until the client leaves
	err     error         // no answer at all
}

func (d *daemon) RoundTrip(r *http.Request) (*http.Response, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	line := r.Method + " " + r.URL.EscapedPath()
	if id := r.Header.Get("Last-Event-ID"); id != "" {
		line += " " + id
	}
	d.requests = append(d.requests, line)
	d.keys = append(d.keys, r.Header.Get("Idempotency-Key"))
	d.queries = append(d.queries, r.URL.Query())
	a := d.answers[0]
	if len(d.answers) > 1 {
		d.answers = d.answers[1:]
	}
	if a.err != nil {
		return nil, a.err
	}
	header := http.Header{"Content-Type": {"text/event-stream"}}
	maps.Copy(header, a.header)
	status := cmp.Or(a.status, http.StatusOK)
	d.open++
	return &http.Response{
		StatusCode: status, Status: fmt.Sprintf("%d %s", status, http.StatusText(status)), Header: header, Request: r,
		Body: &body{d: d, r: r, text: strings.NewReader(a.body), a: a},
	}, nil
}

type body struct {
	d      *daemon
	r      *http.Request
	text   *strings.Reader
	a      answer
	closed bool
}

func (b *body) Read(p []byte) (int, error) {
	if b.a.pause > 0 {
		select {
		case <-time.After(b.a.pause):
		case <-b.r.Context().Done():
			return 0, b.r.Context().Err()
		}
		p = p[:min(len(p), 16)]
	}
	n, err := b.text.Read(p)
	switch {
	case !errors.Is(err, io.EOF):
		return n, err
	case b.a.silent:
		<-b.r.Context().Done()
		return 0, b.r.Context().Err()
	case b.a.bodyErr != nil:
		return 0, b.a.bodyErr
	}
	return 0, io.EOF
}

func (b *body) Close() error {
	b.d.mu.Lock()
	defer b.d.mu.Unlock()
	if !b.closed {
		b.closed = true
		b.d.open--
	}
	return nil
}

// newClient is a client that sends each request once; following events has tries of its
// own.
func newClient(t *testing.T, d *daemon) *Client {
	t.Helper()
	return newPatientClient(t, d, 1)
}

// newPatientClient is one that tries so often.
func newPatientClient(t *testing.T, d *daemon, tries int) *Client {
	t.Helper()
	c, err := New("http://carrel.test/", Options{HTTPClient: &http.Client{Transport: d}, Tries: tries})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if d.open != 0 {
			t.Errorf("%d answers were not closed", d.open)
		}
	})
	return c
}

// frames makes the frames of run r's events from..to, all of one type.
func frames(from, to int64, kind protocol.EventType) string {
	var b strings.Builder
	for seq := from; seq <= to; seq++ {
		fmt.Fprintf(&b, "id: %d\nevent: %s\ndata: {\"run_id\":\"r\",\"seq\":%d,\"type\":\"%s\",\"data\":{}}\n\n", seq, kind, seq, kind)
	}
	return b.String()
}

const (
	delta    = protocol.EventTextDelta
	finished = protocol.EventRunFinished
)

// problem is an answer with a problem document.
func problem(status int, code protocol.Code, more string) answer {
	return answer{
		status: status,
		header: http.Header{"Content-Type": {protocol.ProblemMediaType}},
		body:   fmt.Sprintf(`{"status":%d,"detail":"d","code":%q%s}`, status, code, more),
	}
}

// jsonAnswer is an answer with JSON.
func jsonAnswer(body string) answer {
	return answer{header: http.Header{"Content-Type": {"application/json"}}, body: body}
}
