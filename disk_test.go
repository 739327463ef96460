package carrel

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"carrel/internal/workspace"
	"carrel/protocol"
)

const mib = 1 << 20

// disk is a user's directory that tests fill.
type disk struct {
	bytes atomic.Int64
	looks atomic.Int64
	fails atomic.Bool
	takes time.Duration // to measure
}

func (d *disk) measure(ctx context.Context, _ string) (int64, error) {
	d.looks.Add(1)
	if d.takes > 0 {
		timer := time.NewTimer(d.takes)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
	if d.fails.Load() {
		return 0, errors.New("in motion")
	}
	return d.bytes.Load(), nil
}

// watchDisk makes a watch over d with a quota of 100 MiB, and ends it after the test.
func watchDisk(t *testing.T, d *disk) *diskWatch {
	t.Helper()
	root, stop := context.WithCancel(t.Context())
	w := newDiskWatch(root, 100*mib, d.measure, slog.New(slog.DiscardHandler))
	t.Cleanup(func() {
		stop()
		w.wait()
	})
	return w
}

// begin begins a run, and has its first look taken before the run does anything.
func begin(t *testing.T, w *diskWatch) (context.Context, *diskRun) {
	t.Helper()
	ctx, r, err := w.begin(t.Context(), "ana")
	if err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
	return ctx, r
}

// after lets time pass in the bubble.
func after(d time.Duration) { <-time.After(d) }

func wantExceeded(t *testing.T, err error) {
	t.Helper()
	if e, ok := errors.AsType[*protocol.Error](err); !ok || e.Code != protocol.CodeDiskQuotaExceeded {
		t.Errorf("%v, want %s", err, protocol.CodeDiskQuotaExceeded)
	}
}

func TestRunThatWritesPastTheQuotaIsStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{}
		w := watchDisk(t, d)
		ctx, r := begin(t, w)
		d.bytes.Store(99 * mib)
		after(time.Second)
		if ctx.Err() != nil {
			t.Fatal("within the quota it is stopped")
		}
		d.bytes.Store(101 * mib)
		after(time.Second)
		wantExceeded(t, context.Cause(ctx))
		wantExceeded(t, r.settle(ctx))
		r.end()
	})
}

func TestPastTheQuotaReadingAndDeletingGoOnAndWritingIsStopped(t *testing.T) {
	for name, tt := range map[string]struct {
		then int64 // what the run leaves, of 300 MiB
		ok   bool
	}{
		"reads":                       {300 * mib, true},
		"writes its own short record": {301 * mib, true},
		"deletes":                     {200 * mib, true},
		"deletes all":                 {0, true},
		"writes":                      {302 * mib, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := &disk{}
				d.bytes.Store(300 * mib)
				w := watchDisk(t, d)
				// Over before any look of the follower's: a short run.
				ctx, r := begin(t, w)
				d.bytes.Store(tt.then)
				if err := r.settle(ctx); (err == nil) != tt.ok {
					t.Errorf("a short run ends with %v", err)
				}
				r.end()
				d.bytes.Store(300 * mib)
				after(time.Minute)

				ctx, r = begin(t, w)
				d.bytes.Store(tt.then)
				after(time.Minute)
				if err := context.Cause(ctx); (err == nil) != tt.ok {
					t.Errorf("a long run is stopped by %v", err)
				}
				r.end()
			})
		})
	}
}

func TestRunThatDeletesAndThenWritesAnewIsStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{}
		d.bytes.Store(300 * mib)
		w := watchDisk(t, d)
		ctx, r := begin(t, w)
		d.bytes.Store(150 * mib)
		after(time.Second)
		d.bytes.Store(200 * mib) // less than there was, more than it left
		after(time.Second)
		wantExceeded(t, context.Cause(ctx))
		r.end()
	})
}

func TestQuickRunsPastTheQuotaAreFailedThenHaveToWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{}
		d.bytes.Store(101 * mib)
		w := watchDisk(t, d)
		for range freeStrikes + 1 {
			ctx, r := begin(t, w)
			d.bytes.Add(50 * mib)
			wantExceeded(t, r.settle(ctx))
			r.end()
		}
		_, _, err := w.begin(t.Context(), "ana")
		wantExceeded(t, err)
		if e, ok := errors.AsType[*protocol.Error](err); !ok || e.RetryAfter != 2*time.Second {
			t.Errorf("it does not say when to come again: %v", err)
		}
		other, r, err := w.begin(t.Context(), "bob") // the same fake directory, but not his doing
		if err != nil || other.Err() != nil {
			t.Errorf("another user is refused: %v", err)
		}
		r.end()
		after(2 * time.Second)
		ctx, r := begin(t, w)
		d.bytes.Store(10 * mib)
		if err := r.settle(ctx); err != nil {
			t.Errorf("the run that cleans up ends with %v", err)
		}
		r.end()
		_, r = begin(t, w)
		r.end()
	})
}

func TestPauseEndsWhenTheDirectoryIsRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{}
		d.bytes.Store(101 * mib)
		w := watchDisk(t, d)
		for range freeStrikes + 1 {
			ctx, r := begin(t, w)
			d.bytes.Add(50 * mib)
			wantExceeded(t, r.settle(ctx))
			r.end()
		}
		d.bytes.Store(0)
		w.forget("ana")
		w.forget("nobody")
		_, r := begin(t, w)
		r.end()
	})
}

func TestTreeThatCannotBeCountedStopsItsRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{}
		w := watchDisk(t, d)
		ctx, r := begin(t, w)
		d.fails.Store(true)
		after(lookEvery + lookEvery/2)
		if ctx.Err() != nil {
			t.Error("stopped for one look that failed")
		}
		after(maxUncounted * lookEvery)
		wantExceeded(t, context.Cause(ctx))
		r.end()
	})
}

func TestSlowTreeNeitherDelaysARunNorCostsMoreThanItsShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{takes: time.Second}
		w := watchDisk(t, d)
		start := time.Now()
		_, r := begin(t, w)
		if waited := time.Since(start); waited != 0 {
			t.Errorf("the run waits %s", waited)
		}
		after(10 * time.Minute)
		if n := d.looks.Load(); n < 20 || n > 32 {
			t.Errorf("%d looks of a second in ten minutes, want about 30", n)
		}
		start = time.Now()
		_, second := begin(t, w)
		if waited := time.Since(start); waited != 0 {
			t.Errorf("a tree known to be slow makes a run wait %s", waited)
		}
		second.end()
		r.end()
	})
}

func TestUsersWithinTheirQuotaAreForgottenAfterTheirRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &disk{}
		w := watchDisk(t, d)
		for i := range 100 {
			_, r, err := w.begin(t.Context(), fmt.Sprint("user", i))
			if err != nil {
				t.Fatal(err)
			}
			r.end()
		}
		after(time.Minute)
		w.mu.Lock()
		defer w.mu.Unlock()
		if len(w.users) != 0 {
			t.Errorf("%d users are remembered", len(w.users))
		}
	})
}

func TestNoWatchWatchesNothing(t *testing.T) {
	var w *diskWatch
	ctx, r, err := w.begin(t.Context(), "ana")
	if err != nil || ctx != t.Context() || r.settle(ctx) != nil {
		t.Error("it does something")
	}
	r.end()
	w.forget("ana")
	w.wait()
}

func TestQuotaLayerIsOKOnlyWhereItIsHard(t *testing.T) {
	c := Config{Require: []string{"quota"}}
	for _, tt := range []struct {
		quota workspace.Quota
		state protocol.LayerState
	}{
		{workspace.Quota{IsHard: true, Detail: "hard: project quota of xfs"}, protocol.LayerOK},
		{workspace.Quota{Detail: "soft: x", Meaning: "m", Fix: "f"}, protocol.LayerDegraded},
	} {
		l := c.quotaLayer(tt.quota)
		if l.State != tt.state || l.Detail != tt.quota.Detail || l.Fix != tt.quota.Fix || !l.Required {
			t.Errorf("%+v gives %+v", tt.quota, l)
		}
		r := protocol.IsolationReport{Mode: isolationStrict, Layers: []protocol.Layer{l}}
		if err := CheckIsolation(r); (err == nil) != tt.quota.IsHard {
			t.Errorf("required, %+v gives %v", tt.quota, err)
		}
	}
}
