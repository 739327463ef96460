package broker

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"carrel/internal/door"
	"carrel/internal/store"
	"carrel/protocol"
)

func TestRequestGoesOutWithTheKeyAndWithoutTheCallersOwn(t *testing.T) {
	got := make(chan *http.Request, 1)
	bodies := make(chan string, 1)
	r := newRig(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		bodies <- string(body)
		got <- r.Clone(context.WithoutCancel(r.Context()))
		message(w, r)
	})
	out := request(t, t.Context(), `{"model":"m"}`)
	for name, value := range map[string]string{
		"X-Api-Key":                    "stolen",
		"Authorization":                "Bearer stolen",
		"Proxy-Authorization":          "Basic stolen",
		"Cookie":                       "session=stolen",
		"Anthropic-Admin-Key":          "stolen",
		"Anthropic-Api-Key":            "stolen",
		"X-Goog-Api-Key":               "stolen",
		"Api-Key":                      "stolen",
		"Forwarded":                    "for=1.2.3.4",
		"X-Forwarded-For":              "1.2.3.4",
		"X-Forwarded-Host":             "evil.example",
		"X-Http-Method-Override":       "DELETE",
		"Te":                           "trailers",
		"Accept-Encoding":              "gzip",
		"Origin":                       "https://evil.example",
		"Referer":                      "https://evil.example",
		"Range":                        "bytes=0-1",
		"Expect":                       "200-ok",
		"Anthropic-Version":            "2023-06-01",
		"Anthropic-Beta":               "a-1,b-2",
		"Accept":                       "application/json",
		"User-Agent":                   "Anthropic/Go 1.2",
		"X-Stainless-Retry-Count":      "0",
		"Anthropic-Organization-Id":    "other",
		"Anthropic-Dangerous-Whatever": "true",
	} {
		out.Header.Set(name, value)
	}
	out.Host = "evil.example"
	if a := send(t, r.door, out); a.status != http.StatusOK || a.body != wholeObject {
		t.Fatalf("answer %+v", a)
	}
	in := <-got
	want := http.Header{
		"X-Api-Key":               {canary},
		"Accept-Encoding":         {"identity"},
		"Content-Type":            {"application/json"},
		"Content-Length":          {"13"},
		"Anthropic-Version":       {"2023-06-01"},
		"Anthropic-Beta":          {"a-1,b-2"},
		"Accept":                  {"application/json"},
		"User-Agent":              {"Anthropic/Go 1.2"},
		"X-Stainless-Retry-Count": {"0"},
	}
	if diff := cmp.Diff(want, in.Header); diff != "" {
		t.Errorf("headers upstream (-want +got):\n%s", diff)
	}
	if in.Host == "evil.example" || in.RequestURI != "/v1/messages" || <-bodies != `{"model":"m"}` {
		t.Errorf("upstream has %s of %s", in.RequestURI, in.Host)
	}
}

func TestAnswerComesBackWithoutCookiesAndPlaces(t *testing.T) {
	r := newRig(t, func(w http.ResponseWriter, _ *http.Request) {
		for name, value := range map[string]string{
			"Set-Cookie": "a=b", "Location": "https://evil.example/", "Anthropic-Organization-Id": "org", "Server": "x", "Alt-Svc": "h3",
			"Content-Type": "application/json", "Request-Id": "req_1", "Retry-After": "7", "X-Should-Retry": "true",
			"Anthropic-Ratelimit-Tokens-Remaining": "5",
		} {
			w.Header().Set(name, value)
		}
		w.WriteHeader(http.StatusTemporaryRedirect)
		_, _ = io.WriteString(w, "{}")
	})
	a := r.post(t)
	a.header.Del("Date")
	want := http.Header{
		"Content-Type": {"application/json"}, "Request-Id": {"req_1"}, "Retry-After": {"7"}, "X-Should-Retry": {"true"},
		"Anthropic-Ratelimit-Tokens-Remaining": {"5"}, "Content-Length": {"2"},
	}
	if diff := cmp.Diff(want, a.header); diff != "" || a.status != http.StatusTemporaryRedirect {
		t.Errorf("status %d, headers (-want +got):\n%s", a.status, diff)
	}
}

func TestUpstreamErrorsReachTheAgentAsTheyAre(t *testing.T) {
	for _, status := range []int{400, 401, 413, 429, 500, 529} {
		body := `{"type":"error","error":{"type":"some_error","message":"as it is"}}`
		r := newRig(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Retry-After", "3")
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		})
		a := r.post(t)
		if a.status != status || a.body != body || a.header.Get("Retry-After") != "3" || a.err != nil {
			t.Errorf("%d became %+v", status, a)
		}
		r.close()
		if c := r.ledger.all(); len(c) != 1 || c[0].Status != status || c[0].Spending.CostNanoUSD != 0 || c[0].Cut {
			t.Errorf("%d is charged %+v", status, c)
		}
	}
}

// Each chunk must be here before the next is sent: nothing is held back.
func TestChunksAreNotBuffered(t *testing.T) {
	next := make(chan struct{})
	const chunks = 20
	r := newRig(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range chunks {
			_, _ = io.WriteString(w, "data: "+strconv.Itoa(i)+" s\n\n") // "s" begins the key
			_ = http.NewResponseController(w).Flush()
			<-next
		}
	})
	resp, err := r.door.RoundTrip(request(t, t.Context(), "{}"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	lines := bufio.NewReader(resp.Body)
	for i := range chunks {
		line, err := lines.ReadString('\n')
		if err != nil || line != "data: "+strconv.Itoa(i)+" s\n" {
			t.Fatalf("chunk %d is %q, %v", i, line, err)
		}
		if _, err := lines.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		next <- struct{}{}
	}
}

// A request's body, too, goes on as it comes.
func TestRequestBodyIsNotBuffered(t *testing.T) {
	seen := make(chan string)
	r := newRig(t, func(w http.ResponseWriter, r *http.Request) {
		part := make([]byte, 3)
		for range 2 {
			_, _ = io.ReadFull(r.Body, part)
			seen <- string(part)
		}
		message(w, r)
	})
	body, feed := io.Pipe()
	out := request(t, t.Context(), "")
	out.Body, out.ContentLength, out.GetBody = body, -1, nil
	answered := make(chan answer, 1)
	go func() { answered <- send(t, r.door, out) }()
	for _, part := range []string{"one", "two"} {
		if _, err := feed.Write([]byte(part)); err != nil {
			t.Fatal(err)
		}
		if got := <-seen; got != part {
			t.Errorf("upstream has %q", got)
		}
	}
	_ = feed.Close()
	if a := <-answered; a.status != http.StatusOK {
		t.Errorf("answer %+v", a)
	}
	r.close()
	if c := r.ledger.all(); len(c) != 1 || c[0].BytesIn != 6 || c[0].BytesOut != int64(len(wholeObject)) {
		t.Errorf("charges %+v", c)
	}
}

func TestCutStreamIsCutAndNotAtAnEnd(t *testing.T) {
	before, _, _ := strings.Cut(wholeStream, "event: message_delta")
	for _, kind := range []string{"text/event-stream", "application/json"} {
		r := newRig(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", kind)
			_, _ = io.WriteString(w, before)
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		})
		a := r.post(t)
		if a.err == nil || a.body != before {
			t.Errorf("%s: a cut answer ends with %v after %d of %d bytes", kind, a.err, len(a.body), len(before))
		}
		r.close()
		if c := r.ledger.all(); len(c) != 1 || !c[0].Cut {
			t.Errorf("%s: charges %+v", kind, c)
		}
	}
}

func TestUpstreamThatIsNotThereIsABadGateway(t *testing.T) {
	r := newRig(t, message, func(o *Options) { o.Upstreams[0].BaseURL = "http://127.0.0.1:1" })
	a := r.post(t)
	wantRefused(t, a, http.StatusBadGateway, "could not be reached")
	if a.header.Get("X-Should-Retry") != "" {
		t.Error("the client is told not to try again")
	}
}

type timeout struct{ error }

func (timeout) Timeout() bool   { return true }
func (timeout) Temporary() bool { return false }

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestUpstreamThatDoesNotAnswerIsATimeout(t *testing.T) {
	r := newRig(t, message, func(o *Options) {
		o.Transport = roundTripper(func(*http.Request) (*http.Response, error) { return nil, timeout{errors.New("late")} })
	})
	wantRefused(t, r.post(t), http.StatusGatewayTimeout, "in time")
}

func TestEncodedAnswerIsCut(t *testing.T) {
	r := newRig(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = io.WriteString(w, "not to be read")
	})
	if a := r.post(t); a.err == nil {
		t.Errorf("an answer whose figures cannot be read is handed on: %+v", a)
	}
}

func TestBodyIsBounded(t *testing.T) {
	r := newRig(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		message(w, r)
	})
	const most = 1 << 20
	r.broker.maxBody = most
	wantRefused(t, send(t, r.door, request(t, t.Context(), strings.Repeat("x", most+1))), http.StatusRequestEntityTooLarge, "32 MiB")
	out := request(t, t.Context(), "")
	out.Body, out.ContentLength, out.GetBody = io.NopCloser(strings.NewReader(strings.Repeat("x", most+1))), -1, nil
	wantRefused(t, send(t, r.door, out), http.StatusRequestEntityTooLarge, "32 MiB")
	if a := send(t, r.door, request(t, t.Context(), strings.Repeat("x", most))); a.status != http.StatusOK {
		t.Errorf("a request of just the size is refused: %+v", a)
	}
}

func TestUsageIsCountedAndCharged(t *testing.T) {
	want := protocol.Usage{
		InputTokens: 25, OutputTokens: 15, CacheReadTokens: 4000, CacheCreationTokens: 300,
		// 25·5 + 15·25 + 4000·0.5 + 100·6.25 + 200·10, in millionths
		CostUSD: 0.005125,
	}
	for name, upstream := range map[string]http.HandlerFunc{"object": message, "stream": stream} {
		r := newRig(t, upstream)
		for range 2 {
			if a := r.post(t); a.status != http.StatusOK || a.err != nil {
				t.Fatalf("%s: %+v", name, a)
			}
		}
		twice := protocol.Usage{
			InputTokens: 50, OutputTokens: 30, CacheReadTokens: 8000, CacheCreationTokens: 600, CostUSD: 2 * want.CostUSD,
		}
		if diff := cmp.Diff(twice, r.meter.Usage()); diff != "" {
			t.Errorf("%s: usage of the run (-want +got):\n%s", name, diff)
		}
		r.close()
		charges := r.ledger.all()
		if len(charges) != 2 {
			t.Fatalf("%s: %d charges", name, len(charges))
		}
		c := charges[0]
		if diff := cmp.Diff(want, c.Spending.Usage()); diff != "" {
			t.Errorf("%s: charge (-want +got):\n%s", name, diff)
		}
		if c.UserID != "ann" || c.RunID != runID || c.Model != "claude-opus-4-5-20251101" || c.Status != 200 || c.Cut || c.Duration <= 0 || c.Time.IsZero() {
			t.Errorf("%s: charge %+v", name, c)
		}
		if total := r.broker.Total(); total.Requests != 2 || total.Usage() != twice {
			t.Errorf("%s: total %+v", name, total)
		}
	}
}

// The figures are counted before the worker has the bytes that carry them.
func TestFiguresAreThereBeforeTheAnswerIs(t *testing.T) {
	hold := make(chan struct{})
	r := newRig(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, wholeStream)
		_ = http.NewResponseController(w).Flush()
		<-hold
	})
	resp, err := r.door.RoundTrip(request(t, t.Context(), "{}"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if _, err := io.ReadFull(resp.Body, make([]byte, len(wholeStream))); err != nil {
		t.Fatal(err)
	}
	if got := r.meter.Usage().OutputTokens; got != 15 {
		t.Errorf("the worker has the answer, the meter %d output tokens of 15", got)
	}
	close(hold)
}

func TestUnknownModelCostsTheMost(t *testing.T) {
	r := newRig(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"model":"claude-next-9","usage":{"input_tokens":1000000,"output_tokens":0}}`)
	})
	r.post(t)
	r.post(t)
	if got := r.meter.Usage().CostUSD; got != 30 { // twice Opus 4's
		t.Errorf("cost %g", got)
	}
	r.close()
	if n := strings.Count(r.log.String(), "has no price"); n != 1 {
		t.Errorf("%d warnings:\n%s", n, r.log)
	}
}

func TestAnswerWithoutFiguresIsReported(t *testing.T) {
	r := newRig(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"content":[]}`) })
	r.post(t)
	r.close()
	if !strings.Contains(r.log.String(), "told no usage") {
		t.Errorf("log:\n%s", r.log)
	}
}

// Whoever leaves before the price is told still pays: the answer is read on.
func TestAnswerIsPaidForThoughNobodyWaits(t *testing.T) {
	begun, left := make(chan struct{}), make(chan struct{})
	r := newRig(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // or the server does not hear of the end
		close(begun)
		select {
		case <-left:
		case <-r.Context().Done(): // it was canceled, and costs nothing
		}
		message(w, r)
	})
	ctx, cancel := context.WithCancel(t.Context())
	answered := make(chan answer, 1)
	go func() { answered <- send(t, r.door, request(t, ctx, "{}")) }()
	<-begun
	cancel()
	if a := <-answered; a.err == nil {
		t.Fatalf("answer %+v", a)
	}
	r.meter.End()
	r.link.Close() // nor does it help to kill the worker
	close(left)
	until(t, "a charge", func() bool { return len(r.ledger.all()) == 1 })
	if c := r.ledger.all()[0]; c.Spending.OutputTokens != 15 {
		t.Errorf("charge %+v", c)
	}
}

// A stream that is left is cut upstream as soon as it has told its price.
func TestStreamThatNobodyReadsIsCutUpstream(t *testing.T) {
	before, _, _ := strings.Cut(wholeStream, "event: ping")
	canceled := make(chan struct{})
	r := newRig(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, before)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		close(canceled)
	})
	resp, err := r.door.RoundTrip(request(t, t.Context(), "{}"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(resp.Body, make([]byte, len(before))); err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	<-canceled
	until(t, "a charge", func() bool { return len(r.ledger.all()) == 1 })
	if c := r.ledger.all()[0]; !c.Cut || c.Spending.InputTokens != 25 || c.Spending.OutputTokens < 1 {
		t.Errorf("charge %+v", c)
	}
}

func TestKeyIsNowhereTheWorkerLooks(t *testing.T) {
	says := map[string]http.HandlerFunc{
		"body": func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, "you sent "+r.Header.Get("X-Api-Key"))
		},
		"header": func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Request-Id", r.Header.Get("X-Api-Key")) },
		"error": func(w http.ResponseWriter, r *http.Request) {
			http.Error(w, `{"error":"invalid key `+r.Header.Get("X-Api-Key")+`"}`, http.StatusUnauthorized)
		},
		"in pieces": func(w http.ResponseWriter, r *http.Request) {
			for _, c := range r.Header.Get("X-Api-Key") {
				_, _ = io.WriteString(w, string(c))
				_ = http.NewResponseController(w).Flush()
			}
		},
		"message": message,
		"stream":  stream,
	}
	for name, upstream := range says {
		seen := make(chan string, 1)
		r := newRig(t, func(w http.ResponseWriter, r *http.Request) {
			seen <- r.Header.Get("X-Api-Key")
			upstream(w, r)
		})
		a := r.post(t)
		r.close()
		if <-seen != canary {
			t.Errorf("%s: the upstream did not get the key", name)
		}
		for where, text := range map[string]string{"body": a.body, "log": r.log.String()} {
			if leaks(text) || strings.Contains(text, canary[:6]) {
				t.Errorf("%s: the key is in the %s: %s", name, where, text)
			}
		}
		for key, values := range a.header {
			if leaks(strings.Join(values, " ")) {
				t.Errorf("%s: the key is in the header %s", name, key)
			}
		}
		for _, c := range r.ledger.all() {
			if leaks(c.Model + c.RunID) {
				t.Errorf("%s: the key is in the books", name)
			}
		}
	}
}

func TestNothingGoesOutWithoutAKey(t *testing.T) {
	r := newRig(t, func(http.ResponseWriter, *http.Request) { t.Error("a request without a key went out") },
		func(o *Options) { o.Key = FixedKey(Secret{}) })
	wantRefused(t, r.post(t), http.StatusServiceUnavailable, "no key")
}

func TestClosedBrokerLetsNothingOut(t *testing.T) {
	begun := make(chan struct{})
	r := newRig(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // or the server does not hear of the end
		close(begun)
		<-r.Context().Done()
	})
	answered := make(chan answer, 1)
	go func() { answered <- r.post(t) }()
	<-begun
	r.broker.Close()
	if a := <-answered; a.err == nil && a.status < 500 {
		t.Errorf("answer %+v", a)
	}
	if a := r.post(t); a.err == nil {
		t.Errorf("answer %+v", a)
	}
	if _, _, err := r.broker.Connect("ann"); err == nil {
		t.Error("a closed broker gives a line")
	}
	if c := r.ledger.all(); len(c) != 1 || !c[0].Cut {
		t.Errorf("charges %+v", c)
	}
}

var (
	_ Ledger            = (*store.Store)(nil)
	_ http.RoundTripper = (*door.Door)(nil)
)
