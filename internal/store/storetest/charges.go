package storetest

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"carrel/internal/store"
	"carrel/protocol"
)

func chargeCases() []testCase {
	return []testCase{
		{"a user's charges of the day add up", chargesAddUp},
		{"the day is UTC's and ends at midnight", chargesEndAtMidnight},
		{"charges outlive their runs", chargesOutliveRuns},
		{"pruning spares the present day", pruningSparesToday},
		{"concurrent charges are all there", concurrentCharges},
		{"a closed store takes no charge", closedStoreTakesNoCharge},
	}
}

// charge returns a charge of one request.
func charge(userID string, at time.Time) store.Charge {
	return store.Charge{
		Time: at, UserID: userID, RunID: "run_1", Model: "claude-x", Status: 200,
		BytesIn: 10, BytesOut: 20, Duration: time.Second,
		Spending: store.Spending{
			Requests: 1, InputTokens: 1, OutputTokens: 20, CacheReadTokens: 300, CacheCreationTokens: 4000, CostNanoUSD: 50_000,
		},
	}
}

// times returns what n such charges are together.
func times(n int64) store.Spending {
	return store.Spending{
		Requests: n, InputTokens: n, OutputTokens: 20 * n, CacheReadTokens: 300 * n, CacheCreationTokens: 4000 * n, CostNanoUSD: 50_000 * n,
	}
}

func add(t *testing.T, s Store, charges ...store.Charge) {
	t.Helper()
	if err := s.AddCharges(t.Context(), charges); err != nil {
		t.Fatalf("AddCharges: %v", err)
	}
}

func wantSpent(t *testing.T, s Store, userID string, want store.Spending) {
	t.Helper()
	got, err := s.SpentToday(t.Context(), userID)
	if err != nil {
		t.Fatalf("SpentToday(%s): %v", userID, err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("SpentToday(%s) (-want +got):\n%s", userID, diff)
	}
}

func chargesAddUp(t *testing.T, s Store, clock *Clock) {
	wantSpent(t, s, "ann", store.Spending{})
	add(t, s)
	add(t, s, charge("ann", clock.Now()), charge("bob", clock.Now()), charge("ann", clock.Now()))
	add(t, s, charge("ann", clock.Now()))
	wantSpent(t, s, "ann", times(3))
	wantSpent(t, s, "bob", times(1))
	wantSpent(t, s, "an", store.Spending{})
}

func chargesEndAtMidnight(t *testing.T, s Store, clock *Clock) {
	midnight := clock.Now().UTC().Truncate(24 * time.Hour)
	add(t, s, charge("ann", midnight.Add(-time.Microsecond)), charge("ann", midnight))
	wantSpent(t, s, "ann", times(1))
	clock.Advance(24 * time.Hour)
	wantSpent(t, s, "ann", store.Spending{})
}

func chargesOutliveRuns(t *testing.T, s Store, clock *Clock) {
	create(t, s, NewRun("run_1", "ann"))
	add(t, s, charge("ann", clock.Now()))
	if err := s.DeleteRunsOf(t.Context(), "ann"); err != nil {
		t.Fatal(err)
	}
	wantSpent(t, s, "ann", times(1))
}

func pruningSparesToday(t *testing.T, s Store, clock *Clock) {
	yesterday := clock.Now().Add(-24 * time.Hour)
	add(t, s, charge("ann", yesterday), charge("ann", clock.Now()))
	if _, err := s.Prune(t.Context(), clock.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	wantSpent(t, s, "ann", times(1))
	clock.Advance(-24 * time.Hour) // what was yesterday's is gone
	wantSpent(t, s, "ann", times(1))
}

func concurrentCharges(t *testing.T, s Store, clock *Clock) {
	const writers, each = 8, 20
	var all sync.WaitGroup
	for range writers {
		all.Go(func() {
			for range each {
				if err := s.AddCharges(t.Context(), []store.Charge{charge("ann", clock.Now())}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	wantSpent(t, s, "ann", times(writers*each))
}

func closedStoreTakesNoCharge(t *testing.T, s Store, clock *Clock) {
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	// Not the test's context: a closed store refuses whoever asks.
	ctx := context.WithoutCancel(t.Context())
	wantCode(t, s.AddCharges(ctx, []store.Charge{charge("ann", clock.Now())}), protocol.CodeShuttingDown)
	_, err := s.SpentToday(ctx, "ann")
	wantCode(t, err, protocol.CodeShuttingDown)
}
