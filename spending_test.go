package carrel

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"carrel/internal/broker"
	"carrel/internal/door"
	"carrel/internal/store"
	"carrel/protocol"
)

// noLedger forgets.
type noLedger struct{}

func (noLedger) AddCharges(context.Context, []store.Charge) error { return nil }
func (noLedger) SpentToday(context.Context, string) (store.Spending, error) {
	return store.Spending{}, nil
}

// newMeter returns the meter of a run with that budget, and how its agent asks.
func newMeter(t *testing.T, budget broker.Budget) (m *broker.Meter, ask func() int) {
	t.Helper()
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"model":"claude-opus-4-5","usage":{"input_tokens":1000,"output_tokens":200}}`)
	}))
	t.Cleanup(upstream.Close)
	var secret broker.Secret
	if err := secret.UnmarshalText([]byte(keyCanary)); err != nil {
		t.Fatal(err)
	}
	b, err := broker.New(t.Context(), broker.Options{
		Upstreams: []broker.Upstream{{BaseURL: upstream.URL, Allow: broker.MessagesAPI()}},
		Key:       broker.FixedKey(secret),
		Ledger:    noLedger{},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	link, file, err := b.Connect("ann")
	if err != nil {
		t.Fatal(err)
	}
	d, err := door.Open(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return link.Begin(t.Context(), "run_1", budget), func() int {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, door.BaseURL+"/v1/messages", strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set(door.RunHeader, "run_1")
		resp, err := d.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		if _, err := io.ReadAll(resp.Body); err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode
	}
}

func decode[T any](t *testing.T, data []byte) (v T) {
	t.Helper()
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatalf("%s: %v", data, err)
	}
	return v
}

var onceUsed = protocol.Usage{InputTokens: 1000, OutputTokens: 200, CostUSD: 0.01}

func TestFinishedRunHasTheBrokersFigures(t *testing.T) {
	meter, ask := newMeter(t, broker.Budget{})
	ask()
	claim := protocol.EventParams{Seq: 9, Type: protocol.EventRunFinished, Data: json.RawMessage(
		`{"content":"<a & b>","tool_calls":[],"tokens_used":1,"usage":{"input_tokens":1},"future":{"x":[1]},"duration":2}`)}
	ev, err := billed(t.Context(), claim, meter)
	if err != nil {
		t.Fatal(err)
	}
	got := decode[protocol.Result](t, ev.Data)
	if got.TokensUsed != 1200 || got.Usage != onceUsed || got.Content != "<a & b>" || got.Duration != 2 || ev.Seq != 9 {
		t.Errorf("result %s", ev.Data)
	}
	if !strings.Contains(string(ev.Data), `"future":{"x":[1]}`) || !strings.Contains(string(ev.Data), "<a & b>") {
		t.Errorf("the rest is not as it was: %s", ev.Data)
	}
}

func TestFailedRunTellsWhatItUsed(t *testing.T) {
	meter, ask := newMeter(t, broker.Budget{})
	failed := protocol.EventParams{Type: protocol.EventRunError, Data: json.RawMessage(`{"code":"agent_error","message":"m"}`)}
	if ev, err := billed(t.Context(), failed, meter); err != nil || string(ev.Data) != string(failed.Data) {
		t.Errorf("a run that used nothing: %s, %v", ev.Data, err)
	}
	ask()
	ev, err := billed(t.Context(), failed, meter)
	if err != nil {
		t.Fatal(err)
	}
	want := protocol.RunError{Code: protocol.CodeAgentError, Message: "m", Usage: &onceUsed}
	if diff := cmp.Diff(want, decode[protocol.RunError](t, ev.Data)); diff != "" {
		t.Errorf("error (-want +got):\n%s", diff)
	}
}

func TestRunOverItsBudgetEndsWithThatCode(t *testing.T) {
	meter, ask := newMeter(t, broker.Budget{USD: 0.01})
	endings := map[string]protocol.EventParams{
		"its agent gave up":             {Type: protocol.EventRunError, Data: json.RawMessage(`{"code":"agent_error","message":"403"}`)},
		"its agent made the best of it": {Type: protocol.EventRunFinished, Data: json.RawMessage(`{"content":"half"}`)},
	}
	if status := ask(); status != http.StatusOK {
		t.Fatalf("status %d", status)
	}
	if ev, err := billed(t.Context(), endings["its agent made the best of it"], meter); err != nil || ev.Type != protocol.EventRunFinished {
		t.Errorf("a run that used its budget up, and was refused nothing, ends with %s, %v", ev.Type, err)
	}
	if status := ask(); status != http.StatusForbidden {
		t.Fatalf("status %d", status)
	}
	for name, ending := range endings {
		ev, err := billed(t.Context(), ending, meter)
		if err != nil {
			t.Fatal(err)
		}
		got := decode[protocol.RunError](t, ev.Data)
		if ev.Type != protocol.EventRunError || got.Code != protocol.CodeBudgetExceeded || got.Usage == nil || *got.Usage != onceUsed {
			t.Errorf("%s: %s %s", name, ev.Type, ev.Data)
		}
	}
	// A run that was canceled was canceled, whatever it had used.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	canceled := protocol.EventParams{Type: protocol.EventRunError, Data: json.RawMessage(`{"code":"canceled","message":"m"}`)}
	if ev, err := billed(ctx, canceled, meter); err != nil || decode[protocol.RunError](t, ev.Data).Code != protocol.CodeCanceled {
		t.Errorf("canceled run: %s, %v", ev.Data, err)
	}
}

func TestPricesFileAtFaultIsTold(t *testing.T) {
	path := filepath.Join(t.TempDir(), "prices.json")
	if err := os.WriteFile(path, []byte(`{"models":{"m":{"input":1}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := LoadConfig(ConfigSource{Environ: []string{"CARREL_PRICES_FILE=" + path}})
	if err == nil || !strings.Contains(err.Error(), "CARREL_PRICES_FILE") || !strings.Contains(err.Error(), "is missing") {
		t.Errorf("error %v", err)
	}
}
