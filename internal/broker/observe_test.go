package broker

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"carrel/internal/door"
)

// observed keeps what a broker tells of its requests.
type observed struct {
	mu       sync.Mutex
	answered []Exchange
	refused  []Refusal
}

func (o *observed) of(options *Options) {
	options.Answered = func(x Exchange) {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.answered = append(o.answered, x)
	}
	options.Refused = func(r Refusal) {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.refused = append(o.refused, r)
	}
}

func TestEachRequestIsToldOfOnceWithWhatItCostInTheEnd(t *testing.T) {
	var o observed
	r := newRig(t, stream, o.of)
	r.post(t)
	r.close()
	if len(o.answered) != 1 || len(o.refused) != 0 {
		t.Fatalf("%d answered, %d refused", len(o.answered), len(o.refused))
	}
	x := o.answered[0]
	if x.Model != "claude-opus-4-5" || x.Status != 200 || x.Cut || x.Took <= 0 ||
		x.BytesIn != int64(len(`{"model":"claude-opus-4-5"}`)) || x.BytesOut != int64(len(wholeStream)) || x.Usage.OutputTokens != 15 {
		t.Errorf("told: %+v", x)
	}
}

// A model's name is the upstream's word, and the caller's before it.
func TestModelWithoutAPriceHasNoName(t *testing.T) {
	var o observed
	r := newRig(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, strings.Replace(wholeObject, "claude-opus-4-5-20251101", `own\n-model`, 1))
	}, o.of)
	r.post(t)
	r.close()
	if len(o.answered) != 1 || o.answered[0].Model != "" || o.answered[0].Usage.CostUSD <= 0 {
		t.Errorf("told: %+v", o.answered)
	}
}

func TestEachRefusalHasItsReason(t *testing.T) {
	var o observed
	r := newRig(t, message, o.of)
	r.broker.maxBody = 100
	ask := func(method, target, run, body string) {
		req, err := http.NewRequestWithContext(t.Context(), method, door.BaseURL+target, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set(door.RunHeader, run)
		send(t, r.door, req)
	}
	ask("GET", "/v1/models", runID, "")
	ask("POST", "/v1/messages", runID, strings.Repeat("x", 101))
	ask("POST", "/v1/messages", "run_2", "{}")
	r.meter.End()
	r.meter = r.link.Begin(t.Context(), runID, Budget{Tokens: 1})
	ask("POST", "/v1/messages", runID, "{}")
	ask("POST", "/v1/messages", runID, "{}")
	r.close()
	if diff := cmp.Diff([]Refusal{NotAllowed, TooLarge, NoRun, OverBudget}, o.refused); diff != "" {
		t.Error(diff)
	}
	if len(o.answered) != 1 {
		t.Errorf("%d answered", len(o.answered))
	}
	if s := fmt.Sprintf("%+v %+v", o.answered, o.refused); strings.Contains(s, canary) {
		t.Error("the key is told")
	}
}

// Only the host's own word on a trace leaves: whatever a worker sends stays here.
func TestTraceparentIsTheHostsOrNone(t *testing.T) {
	for _, ours := range []string{"", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"} {
		var sent http.Header
		var ended []Exchange
		r := newRig(t, func(w http.ResponseWriter, req *http.Request) {
			sent = req.Header.Clone()
			message(w, req)
		}, func(o *Options) {
			o.Began = func(run string) (string, func(Exchange)) {
				if run != runID {
					t.Errorf("begun of %q", run)
				}
				return ours, func(x Exchange) { ended = append(ended, x) }
			}
		})
		req := request(t, t.Context(), "{}")
		req.Header.Set("Traceparent", "00-ffffffffffffffffffffffffffffffff-ffffffffffffffff-01")
		req.Header.Set("Tracestate", "worker=1")
		req.Header.Set("Baggage", "worker=1")
		send(t, r.door, req)
		r.close()
		if sent.Get("Traceparent") != ours || sent.Get("Tracestate") != "" || sent.Get("Baggage") != "" {
			t.Errorf("with %q of ours the upstream got %v", ours, sent)
		}
		if len(ended) != 1 || ended[0].Status != http.StatusOK {
			t.Errorf("ended: %+v", ended)
		}
	}
}
