package broker

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"carrel/internal/door"
	"carrel/internal/store"
	"carrel/protocol"
)

// Every answer of message costs $0.005125 and has 4340 tokens.
const (
	answerNano   = 5_125_000
	answerTokens = 4340
)

func TestUsedUpBudgetEndsTheRun(t *testing.T) {
	tests := []struct {
		name    string
		run     Budget
		day     Budget
		before  store.Spending
		answers int // that pass
	}{
		{"none", Budget{}, Budget{}, store.Spending{CostNanoUSD: 1e12}, 5},
		{"dollars of the run", Budget{USD: 0.0052}, Budget{}, store.Spending{}, 2},
		{"dollars of the run, to the last", Budget{USD: 0.01025}, Budget{}, store.Spending{}, 2},
		{"tokens of the run", Budget{Tokens: answerTokens + 1}, Budget{}, store.Spending{}, 2},
		{"dollars of the day", Budget{}, Budget{USD: 1}, store.Spending{CostNanoUSD: 1e9 - 1}, 1},
		{"dollars of a day that is used up", Budget{}, Budget{USD: 1}, store.Spending{CostNanoUSD: 1e9}, 0},
		{"tokens of the day", Budget{}, Budget{Tokens: 10_000}, store.Spending{InputTokens: 3000, CacheReadTokens: 3000}, 1},
		{"the tighter one counts", Budget{Tokens: 1}, Budget{Tokens: 1e9}, store.Spending{}, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var sent atomic.Int32
			r := newRig(t, func(w http.ResponseWriter, r *http.Request) {
				sent.Add(1)
				message(w, r)
			}, func(o *Options) { o.UserDay = tt.day })
			r.ledger.before = tt.before
			r.meter.End()
			r.meter = r.link.Begin(t.Context(), runID, tt.run)
			for i := range tt.answers {
				if a := r.post(t); a.status != http.StatusOK {
					t.Fatalf("request %d: %+v", i+1, a)
				}
				if err := r.meter.Exceeded(); err != nil {
					t.Errorf("exceeded before a request was refused: %v", err)
				}
			}
			if tt.name == "none" {
				return
			}
			a := r.post(t)
			wantRefused(t, a, http.StatusForbidden, "budget exceeded: ")
			if a.header.Get("X-Should-Retry") != "false" || a.header.Get(door.CodeHeader) != string(protocol.CodeBudgetExceeded) {
				t.Errorf("headers %v", a.header)
			}
			if err := r.meter.Exceeded(); err == nil || err.Code != protocol.CodeBudgetExceeded {
				t.Errorf("Exceeded() = %v", err)
			}
			if int(sent.Load()) != tt.answers {
				t.Errorf("%d requests went out, %d should", sent.Load(), tt.answers)
			}
		})
	}
}

// Fifty at once: no figure is lost, and as soon as the answers that went by are
// together over the budget nobody passes any more, whoever asked first.
func TestFiftyAtOnceShareOneBudget(t *testing.T) {
	const askers, pays = 50, 20 // answers that the budget pays
	var sent, going, most atomic.Int32
	r := newRig(t, func(w http.ResponseWriter, r *http.Request) {
		sent.Add(1)
		now := going.Add(1)
		for seen := most.Load(); now > seen && !most.CompareAndSwap(seen, now); seen = most.Load() {
		}
		defer going.Add(-1)
		_, _ = io.Copy(io.Discard, r.Body)
		stream(w, r)
	}, func(o *Options) { o.UserDay = Budget{USD: pays * answerNano / 1e9} })
	other, otherDoor := connect(t, r.broker, "ann") // another worker of the same user
	other.Begin(t.Context(), "run_2", Budget{})

	var passed, refused atomic.Int32
	var all sync.WaitGroup
	for i := range askers {
		all.Go(func() {
			d, run := r.door, runID
			if i%2 == 1 {
				d, run = otherDoor, "run_2"
			}
			for range 2 {
				out := request(t, t.Context(), "{}")
				out.Header.Set(door.RunHeader, run)
				switch a := send(t, d, out); a.status {
				case http.StatusOK:
					passed.Add(1)
				case http.StatusForbidden:
					refused.Add(1)
				default:
					t.Errorf("answer %+v", a)
				}
			}
		})
	}
	all.Wait()
	if passed.Load() < pays || passed.Load() >= pays+maxRequests {
		t.Errorf("%d passed; the budget pays %d, and less than %d may be under way then", passed.Load(), pays, maxRequests)
	}
	if passed.Load() != sent.Load() || passed.Load()+refused.Load() != 2*askers {
		t.Errorf("%d passed, %d refused, %d went out", passed.Load(), refused.Load(), sent.Load())
	}
	if most.Load() > maxRequests {
		t.Errorf("%d of one user at a time", most.Load())
	}
	if got, want := r.broker.Total().CostNanoUSD, int64(passed.Load())*answerNano; got != want {
		t.Errorf("spent %d, the answers cost %d", got, want)
	}
	r.close()
	var charged store.Spending
	for _, c := range r.ledger.all() {
		charged.Add(c.Spending)
	}
	if charged != r.broker.Total() {
		t.Errorf("charged %+v, spent %+v", charged, r.broker.Total())
	}
}

// One user's budget is nobody else's.
func TestBudgetOfTheDayIsOfOneUser(t *testing.T) {
	r := newRig(t, message, func(o *Options) { o.UserDay = Budget{Tokens: 1} })
	if a := r.post(t); a.status != http.StatusOK {
		t.Fatalf("answer %+v", a)
	}
	wantRefused(t, r.post(t), http.StatusForbidden, "today")
	bob, bobsDoor := connect(t, r.broker, "bob")
	bob.Begin(t.Context(), runID, Budget{})
	if a := send(t, bobsDoor, request(t, t.Context(), "{}")); a.status != http.StatusOK {
		t.Errorf("another user is refused: %+v", a)
	}
}

func TestLedgerThatCannotBeReadStopsABudgetOfTheDay(t *testing.T) {
	r := newRig(t, message, func(o *Options) { o.UserDay = Budget{USD: 1} })
	r.ledger.fails = errors.New("disk")
	wantRefused(t, r.post(t), http.StatusServiceUnavailable, "not known")
	if r.meter.Exceeded() != nil {
		t.Error("a ledger that cannot be read counts as a used-up budget")
	}
	r.ledger.mu.Lock()
	r.ledger.fails = nil
	r.ledger.mu.Unlock()
	if a := r.post(t); a.status != http.StatusOK {
		t.Errorf("answer %+v", a)
	}
}

// A stream that passes the budget in its middle is let to its end.
func TestAnswerThatPassesTheBudgetComesToItsEnd(t *testing.T) {
	r := newRig(t, stream)
	r.meter.End()
	r.meter = r.link.Begin(t.Context(), runID, Budget{Tokens: 10}) // message_start has more
	if a := r.post(t); a.status != http.StatusOK || a.err != nil || a.body != wholeStream {
		t.Errorf("answer %+v", a)
	}
	wantRefused(t, r.post(t), http.StatusForbidden, "the run has used 4340 of 10 tokens")
}

func TestRequestsOfNoGoingRunAreRefused(t *testing.T) {
	r := newRig(t, func(http.ResponseWriter, *http.Request) { t.Error("a request went out") })
	bob, bobsDoor := connect(t, r.broker, "bob")
	bob.Begin(t.Context(), "run_bob", Budget{})
	for _, run := range []string{"", "run_2", "run_bob", runID + " ", "run_1,run_1"} {
		out := request(t, t.Context(), "{}")
		out.Header.Set(door.RunHeader, run)
		if run == "" {
			out.Header.Del(door.RunHeader)
		}
		wantRefused(t, send(t, r.door, out), http.StatusForbidden, "no run")
	}
	wantRefused(t, send(t, bobsDoor, request(t, t.Context(), "{}")), http.StatusForbidden, "no run")
	r.meter.End()
	wantRefused(t, r.post(t), http.StatusForbidden, "no run")
}

// What a run has left behind ends with it.
func TestEndOfARunEndsItsRequests(t *testing.T) {
	canceled := make(chan struct{})
	r := newRig(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, wholeStream[:600]) // message_start and more
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		close(canceled)
	})
	resp, err := r.door.RoundTrip(request(t, t.Context(), "{}"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if _, err := io.ReadFull(resp.Body, make([]byte, 600)); err != nil {
		t.Fatal(err)
	}
	r.meter.End()
	if _, err := io.ReadAll(resp.Body); err == nil {
		t.Error("the answer comes to a clean end")
	}
	<-canceled
}

// A worker that reads nothing holds nothing once its run has ended.
func TestUnreadAnswerEndsWithItsRun(t *testing.T) {
	const window = 4 << 20 // what a client takes of an answer that nobody reads
	r := newRig(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "text/event-stream")
		before, _, _ := strings.Cut(wholeStream, "event: ping")
		_, err := io.WriteString(w, before)
		delta := `data: {"type":"content_block_delta","delta":{"text":"` + strings.Repeat("x", 16<<10) + "\"}}\n\n"
		for err == nil {
			_, err = io.WriteString(w, delta)
		}
	})
	resp, err := r.door.RoundTrip(request(t, t.Context(), "{}"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	last, still := int64(0), 0 // until nothing moves any more
	until(t, "a full window", func() bool {
		now := r.meter.Usage().OutputTokens
		if still++; now != last || now < window*9/10/bytesPerToken {
			last, still = now, 0
		}
		return still > 50
	})
	r.meter.End()
	until(t, "a free slot", func() bool { return len(r.link.account.slots) == 0 })
}

// The slots are of one user, and whoever waits for one can leave.
func TestRequestsWaitForTheirTurn(t *testing.T) {
	going, release := make(chan struct{}, maxRequests), make(chan struct{})
	r := newRig(t, func(w http.ResponseWriter, r *http.Request) {
		going <- struct{}{}
		<-release
		message(w, r)
	})
	var all sync.WaitGroup
	for range maxRequests {
		all.Go(func() {
			if a := r.post(t); a.status != http.StatusOK {
				t.Errorf("answer %+v", a)
			}
		})
	}
	for range maxRequests {
		<-going
	}
	ctx, cancel := context.WithCancel(t.Context())
	left := make(chan answer, 1)
	go func() { left <- send(t, r.door, request(t, ctx, "{}")) }()
	bob, bobsDoor := connect(t, r.broker, "bob")
	bob.Begin(t.Context(), runID, Budget{})
	bobs := make(chan answer, 1)
	go func() { bobs <- send(t, bobsDoor, request(t, t.Context(), "{}")) }()
	<-going // bob's: others' requests are not in his way
	cancel()
	if a := <-left; a.err == nil {
		t.Errorf("the one too many has %+v", a)
	}
	close(release)
	all.Wait()
	if a := <-bobs; a.status != http.StatusOK {
		t.Errorf("answer %+v", a)
	}
}

func TestClockThatJumpsADayAndBackGivesNoSecondBudget(t *testing.T) {
	spent := store.Spending{InputTokens: 5}
	o := Options{UserDay: Budget{Tokens: 5}, Ledger: &ledger{before: spent}}
	a := newAccount("ann")
	if err := a.openDay(t.Context(), o); err != nil || o.UserDay.usedUp(a.today, "she") == "" {
		t.Fatalf("%+v, %v", a.today, err)
	}
	a.day, a.today = a.day.Add(24*time.Hour), store.Spending{} // as after a request while the clock was ahead
	if err := a.openDay(t.Context(), o); err != nil || o.UserDay.usedUp(a.today, "she") == "" {
		t.Errorf("back on the day of before she has used %+v, %v", a.today, err)
	}
}
