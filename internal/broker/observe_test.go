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
	if x.Model != "claude-opus-4-5" || x.RunID != runID || x.Status != 200 || x.Cut || x.Took <= 0 || x.Began.IsZero() ||
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
