package pool

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"carrel/internal/engine"
	"carrel/protocol"
)

// told keeps what a pool tells of its workers.
type told struct {
	mu     sync.Mutex
	starts []Start
	ends   []EndReason
}

func (o *told) options(more Options) Options {
	more.Started = func(s Start) {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.starts = append(o.starts, s)
	}
	more.Ended = func(r EndReason) {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.ends = append(o.ends, r)
	}
	return more
}

func (o *told) seen() ([]Start, []EndReason) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.starts), slices.Clone(o.ends)
}

func (o *told) steps() map[string][]string {
	o.mu.Lock()
	defer o.mu.Unlock()
	all := make(map[string][]string)
	for _, s := range o.starts {
		var steps []string
		for _, step := range s.Steps {
			steps = append(steps, step.Step)
		}
		all[string(s.Kind)] = steps
	}
	return all
}

func TestEachStartIsToldOnceWithItsStepsAndTheLeaseKnowsIt(t *testing.T) {
	var cold, warm told
	inBubble(t, cold.options(Options{}), func(t *testing.T, r *rig) {
		l := r.acquire("ann")
		defer l.Release()
		want := map[string][]string{"cold": {"clone", "root", "bind", "initialize"}}
		if diff := cmp.Diff(want, cold.steps()); diff != "" {
			t.Error(diff)
		}
		if s := l.Start(); s.Kind != ColdStart || s.Worker != l.Worker() || len(s.Steps) != 4 || s.Ended.Before(s.Began) {
			t.Errorf("the lease tells %+v", s)
		}
		r.acquire("ann").Release()
		if starts, _ := cold.seen(); len(starts) != 1 {
			t.Errorf("%d starts are told", len(starts))
		}
	})
	inBubble(t, warm.options(Options{Warm: 1}), func(t *testing.T, r *rig) {
		synctest.Wait()
		time.Sleep(time.Hour)
		l := r.acquire("ann")
		defer l.Release()
		want := map[string][]string{"spare": {"clone", "root"}, "warm": {"bind", "initialize"}}
		synctest.Wait()
		if diff := cmp.Diff(want, warm.steps()); diff != "" {
			t.Error(diff)
		}
		if s := l.Start(); s.Kind != WarmStart || s.Ended.Sub(s.Began) > time.Minute {
			t.Errorf("the wait for a user counts as a start: %+v", s)
		}
	})
}

func TestStartThatFailsIsToldWithItsError(t *testing.T) {
	var o told
	inBubble(t, o.options(Options{}), func(t *testing.T, r *rig) {
		r.engine.startErr = func(n int, _ engine.Spec) error {
			if n == 1 {
				return errClone
			}
			return nil
		}
		r.acquire("ann").Release()
		if starts, _ := o.seen(); len(starts) != 2 || starts[0].Err == nil || starts[0].Kind != ColdStart || starts[1].Err != nil {
			t.Errorf("told: %+v", starts)
		}
		r.engine.bindErr = func(string) error { return errors.New("no") }
		q := r.request("bob")
		<-q.done
		synctest.Wait()
		starts, ends := o.seen()
		if last := starts[len(starts)-1]; last.Err == nil || last.Err.Cause.Step != stepBind {
			t.Errorf("told: %+v", last)
		}
		if len(ends) == 0 || ends[0] != EndStartFailed {
			t.Errorf("the ends are %q", ends)
		}
	})
}

func TestEachEndOfAWorkerHasItsReason(t *testing.T) {
	for message, want := range map[string]EndReason{
		"text exit:0":      EndCrashed, // in the middle of a run
		"text exit:3":      EndCrashed,
		"text sig:SIGKILL": EndCrashed,
		"torn":             EndCrashed,
		"oom":              EndOutOfMemory,
		"seccomp":          EndSeccomp,
		"stop deaf":        EndNoAnswer,
		"raw:garbage wait": EndProtocol,
		"quiet":            EndProtocol,
		"ok":               EndStopped, // retired
	} {
		var o told
		options := o.options(Options{PingInterval: 10 * time.Second, PingTimeout: 5 * time.Second, IdleTimeout: time.Minute})
		t.Run(message, func(t *testing.T) {
			inBubble(t, options, func(t *testing.T, r *rig) {
				l := r.acquire("ann")
				_, _ = l.Execute(t.Context(), protocol.ExecuteParams{RunID: "run_x", Message: message}, nothing)
				l.Release()
				time.Sleep(time.Hour)
				synctest.Wait()
				_, ends := o.seen()
				if diff := cmp.Diff([]EndReason{want}, ends); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}
