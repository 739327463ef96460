package broker

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"carrel/internal/door"
	"carrel/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// ledger is a Ledger in memory.
type ledger struct {
	mu      sync.Mutex
	charges []store.Charge
	before  store.Spending // what each user has spent already
	fails   error
}

func (l *ledger) AddCharges(_ context.Context, charges []store.Charge) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.charges = append(l.charges, charges...)
	return nil
}

func (l *ledger) SpentToday(context.Context, string) (store.Spending, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.before, l.fails
}

func (l *ledger) all() []store.Charge {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]store.Charge(nil), l.charges...)
}

// safeBuffer is a log that is written and read at once.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// rig is a broker between a door and an upstream of the test's.
type rig struct {
	broker *Broker
	link   *Link
	door   *door.Door
	meter  *Meter
	ledger *ledger
	log    *safeBuffer
	close  func() // once; by the test's end at the latest
}

const runID = "run_1"

func newRig(t testing.TB, upstream http.HandlerFunc, change ...func(*Options)) *rig {
	t.Helper()
	server := httptest.NewServer(upstream)
	r := &rig{ledger: &ledger{}, log: &safeBuffer{}}
	var secret Secret
	if err := secret.UnmarshalText([]byte(canary)); err != nil {
		t.Fatal(err)
	}
	o := Options{
		Upstreams: []Upstream{{BaseURL: server.URL, Allow: MessagesAPI()}},
		Key:       FixedKey(secret),
		Ledger:    r.ledger,
		Logger:    slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	for _, c := range change {
		c(&o)
	}
	var err error
	if r.broker, err = New(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	r.link, r.door = connect(t, r.broker, "ann")
	r.meter = r.link.Begin(t.Context(), runID, Budget{})
	var once sync.Once
	r.close = func() {
		once.Do(func() {
			_ = r.door.Close()
			r.broker.Close()
			server.Close()
		})
	}
	t.Cleanup(r.close)
	return r
}

func connect(t testing.TB, b *Broker, userID string) (*Link, *door.Door) {
	t.Helper()
	l, file, err := b.Connect(userID)
	if err != nil {
		t.Fatal(err)
	}
	d, err := door.Open(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return l, d
}

// request is a message of the run.
func request(t testing.TB, ctx context.Context, body string) *http.Request { //nolint:revive // t first, as in all helpers
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, door.BaseURL+"/v1/messages", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set(door.RunHeader, runID)
	r.Header.Set("Content-Type", "application/json")
	return r
}

// answer is a whole answer.
type answer struct {
	status int
	header http.Header
	body   string
	err    error // of reading it
}

func send(t testing.TB, d http.RoundTripper, r *http.Request) answer {
	t.Helper()
	resp, err := d.RoundTrip(r)
	if err != nil {
		return answer{err: err}
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(body), err}
}

// post sends a message and returns its answer.
func (r *rig) post(t testing.TB) answer {
	t.Helper()
	return send(t, r.door, request(t, t.Context(), `{"model":"claude-opus-4-5"}`))
}

// wantRefused checks that an answer is the broker's own, in the API's form.
func wantRefused(t testing.TB, a answer, status int, part string) {
	t.Helper()
	var body struct {
		Type  string `json:"type"`
		Error struct {
			Type    string `json:"type"`
			Message string `json:"message"`
		} `json:"error"`
	}
	if a.err != nil {
		t.Fatalf("no answer: %v", a.err)
	}
	if err := json.Unmarshal([]byte(a.body), &body); err != nil {
		t.Fatalf("%d %q: %v", a.status, a.body, err)
	}
	if a.status != status || body.Type != "error" || body.Error.Type == "" ||
		!strings.HasPrefix(body.Error.Message, "carrel: ") || !strings.Contains(body.Error.Message, part) {
		t.Errorf("%d %s, want %d and %q", a.status, a.body, status, part)
	}
}

// message answers with a whole object.
func message(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, wholeObject)
}

// stream answers with a whole stream.
func stream(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	_, _ = io.WriteString(w, wholeStream)
}

// until polls for what another goroutine is about to do.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-t.Context().Done():
			t.Fatalf("never: %s", what)
		}
	}
}
