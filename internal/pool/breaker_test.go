package pool

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"carrel/internal/engine"
	"carrel/protocol"
)

var errClone = protocol.Errorf(protocol.CodeWorkerStartFailed, "start worker: clone: no memory")

func TestStartThatFailsOnceIsTriedAgainUnnoticed(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, r *rig) {
		r.engine.startErr = func(n int, _ engine.Spec) error {
			if n == 1 {
				return errClone
			}
			return nil
		}
		q := r.request("ann")
		<-q.done
		if q.err != nil || q.took != minBackoff/2 { // The rig's dice are always 0.5.
			t.Errorf("%v after %s", q.err, q.took)
		}
		q.lease.Release()
	})
}

func TestFifthFailureInARowOpensTheBreakerUntilAProbeSucceeds(t *testing.T) {
	inBubble(t, Options{Warm: 1, QueueSize: 5}, func(t *testing.T, r *rig) {
		var broken atomic.Bool
		broken.Store(true)
		r.engine.startErr = func(int, engine.Spec) error {
			if broken.Load() {
				return errClone
			}
			return nil
		}
		r.acquire("zoe").Release() // Takes the warm one that was started before.
		q := r.request("ann")
		<-q.done
		wantCode(t, q.err, protocol.CodeWorkerStartFailed)
		if !strings.Contains(fmt.Sprint(q.err), "clone: no memory") {
			t.Errorf("%v names no step", q.err)
		}
		synctest.Wait() // The refill, which the failed user start let go on.
		// The rest of the same moment: at once, and no start.
		began, starts := time.Now(), r.engine.tries()
		_, err := r.pool.Acquire(t.Context(), "bob", AcquireOptions{})
		death, ok := errors.AsType[*DeathError](err)
		if !ok {
			t.Fatalf("open: %#v", err)
		}
		if death.Cause.Step != stepStart || death.Err.RetryAfter <= 0 || death.Err.RetryAfter > maxBackoff {
			t.Errorf("open: %+v", death)
		}
		if time.Since(began) != 0 || r.engine.tries() != starts {
			t.Error("an open breaker let somebody wait or start")
		}
		// Warm refill goes on probing, slower and slower, but does not spin.
		time.Sleep(time.Minute)
		if n := r.engine.tries() - starts; n < 8 || n > 20 {
			t.Errorf("%d probes in a minute", n)
		}
		broken.Store(false)
		time.Sleep(maxBackoff)
		r.acquire("bob").Release()
	})
}

func TestWhoFindsNoPlaceToWaitForTheNextStartIsToldWhy(t *testing.T) {
	inBubble(t, Options{QueueSize: 0}, func(t *testing.T, r *rig) {
		r.engine.startErr = func(int, engine.Spec) error { return errClone }
		q := r.request("ann")
		_, err := r.pool.Acquire(t.Context(), "bob", AcquireOptions{})
		wantCode(t, err, protocol.CodeWorkerStartFailed)
		<-q.done
	})
}

func TestStartsThatFailTogetherCountOnce(t *testing.T) {
	inBubble(t, Options{MaxWorkers: 20, QueueSize: 20}, func(t *testing.T, r *rig) {
		r.engine.startDelay = 10 * time.Millisecond
		r.engine.startErr = func(n int, _ engine.Spec) error {
			if n <= 10 {
				return errClone
			}
			return nil
		}
		var all []*pending
		for i := range 10 {
			all = append(all, r.request(fmt.Sprint("user", i)))
		}
		for _, q := range all {
			if <-q.done; q.err != nil {
				t.Fatal(q.err)
			}
			q.lease.Release()
		}
	})
}

func TestBindThatFailsForOneUserLeavesOthersAlone(t *testing.T) {
	inBubble(t, Options{Warm: 1, QueueSize: 5}, func(t *testing.T, r *rig) {
		r.engine.bindErr = func(userID string) error {
			if userID == "ann" {
				return protocol.Errorf(protocol.CodeWorkerStartFailed, "bind: directory of ann: not owned")
			}
			return nil
		}
		q := r.request("ann")
		<-q.done
		death, ok := errors.AsType[*DeathError](q.err)
		if !ok || death.Cause.Step != stepBind || !strings.Contains(q.err.Error(), "not owned") {
			t.Errorf("ann: %v", q.err)
		}
		began := time.Now()
		r.acquire("bob").Release()
		if time.Since(began) != 0 {
			t.Error("bob had to wait")
		}
		_, err := r.pool.Acquire(t.Context(), "ann", AcquireOptions{})
		wantCode(t, err, protocol.CodeWorkerStartFailed)
		r.engine.bindErr = nil
		time.Sleep(maxBackoff)
		r.acquire("ann").Release()
	})
}

func TestMemoryOfFailedBindsIsBounded(t *testing.T) {
	s := state{binds: New(nil, Options{}).state.binds}
	for i := range 3 * maxBinds {
		s.binds.failed(fmt.Sprint(i), time.Now(), startDeath(stepBind, errClone))
	}
	if n := len(s.binds.byUser); n != maxBinds || s.binds.order.Len() != n {
		t.Errorf("%d users are remembered", n)
	}
}

func TestMissingIsolationIsToldAtOnce(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, r *rig) {
		r.engine.startErr = func(int, engine.Spec) error {
			return protocol.Errorf(protocol.CodeIsolationUnavailable, "landlock: ABI 2, 6 is required")
		}
		q := r.request("ann")
		<-q.done
		wantCode(t, q.err, protocol.CodeIsolationUnavailable)
		if q.took != 0 {
			t.Errorf("told after %s", q.took)
		}
	})
}

func TestFailedHandshakeNamesItsReason(t *testing.T) {
	tests := map[string]struct {
		set  func(*fakeEngine)
		want string
	}{
		"other version": {func(e *fakeEngine) { e.version = 99 }, "another version"},
		"no answer":     {func(e *fakeEngine) { e.deafAtStart = true }, "start took too long"},
		"refused": {func(e *fakeEngine) {
			e.initialize = func(*fakeWorker) error { return protocol.Errorf(protocol.CodeInternal, "no agent claude") }
		}, "no agent claude"},
		"dies": {func(e *fakeEngine) {
			e.initialize = func(w *fakeWorker) error { w.die(protocol.ExitCause{Signal: "SIGSEGV"}); return nil }
		}, "signal SIGSEGV"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			inBubble(t, Options{StartupTimeout: 10 * time.Second, QueueTimeout: 5 * time.Second}, func(t *testing.T, r *rig) {
				tt.set(r.engine)
				q := r.request("ann")
				<-q.done
				wantCode(t, q.err, protocol.CodeWorkerStartFailed)
				if !strings.Contains(fmt.Sprint(q.err), "initialize: ") || !strings.Contains(q.err.Error(), tt.want) {
					t.Errorf("%v, want %q in it", q.err, tt.want)
				}
			})
		})
	}
}

func TestWarmWorkersThatDieAtOnceAreNotStartedWithoutPause(t *testing.T) {
	inBubble(t, Options{Warm: 1}, func(t *testing.T, r *rig) {
		for began := time.Now(); time.Since(began) < time.Minute; {
			synctest.Wait()
			r.engine.last().die(protocol.ExitCause{Signal: "SIGKILL"})
			time.Sleep(time.Millisecond)
		}
		if _, started := r.engine.count(); started > 25 {
			t.Errorf("%d starts in a minute", started)
		}
	})
}

func TestBackoffIsShortAgainAfterAHealthyTime(t *testing.T) {
	now := time.Now()
	b := breaker{rand: func() float64 { return 0.999 }}
	fail := func() time.Duration {
		b.failed(now, b.begin(), startDeath(stepStart, errClone))
		return b.notBefore.Sub(now).Round(minBackoff)
	}
	for want := minBackoff; want < maxBackoff; want *= 2 {
		if got := fail(); got != want {
			t.Errorf("backoff is %s, want %s", got, want)
		}
	}
	if got := fail(); got != maxBackoff {
		t.Errorf("backoff is %s, want %s", got, maxBackoff)
	}
	b.succeeded(now)
	now = now.Add(healthyTime - 1)
	if got := fail(); got != maxBackoff {
		t.Errorf("backoff before the healthy time is over: %s", got)
	}
	b.succeeded(now)
	now = now.Add(healthyTime)
	if got := fail(); got != minBackoff {
		t.Errorf("backoff after a healthy time: %s", got)
	}
}
