package pool

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"carrel/protocol"
)

func TestEachDeathHasItsOwnErrorAndCause(t *testing.T) {
	three := 3
	tests := []struct {
		name, message string
		code          protocol.Code
		text          string
		cause         protocol.ExitCause
	}{
		{"exit", "text exit:3", protocol.CodeWorkerCrashed, "exit status 3", protocol.ExitCause{ExitCode: &three}},
		{"signal", "text sig:SIGKILL", protocol.CodeWorkerCrashed, "worker ended: signal SIGKILL", protocol.ExitCause{Signal: "SIGKILL"}},
		{"out of memory", "oom", protocol.CodeOutOfMemory, "memory", protocol.ExitCause{OOMKill: true}},
		{"seccomp", "seccomp", protocol.CodeWorkerCrashed, "seccomp", protocol.ExitCause{Seccomp: true}},
		{"killed inside a line", "torn", protocol.CodeWorkerCrashed, "signal SIGKILL", protocol.ExitCause{Signal: "SIGKILL"}},
		{"stream closed, process alive", "hangup deaf", protocol.CodeWorkerProtocolError, "closed its stream", protocol.ExitCause{}},
		{"hang", "stop deaf", protocol.CodeWorkerCrashed, "no answer to ping", protocol.ExitCause{NoAnswer: true}},
		{"garbage", "raw:garbage wait", protocol.CodeWorkerProtocolError, "protocol", protocol.ExitCause{}},
		{"gap in the numbers", "text seq:4 wait", protocol.CodeWorkerProtocolError, "event 4", protocol.ExitCause{}},
		{"number twice", "text seq:2 wait", protocol.CodeWorkerProtocolError, "event 2", protocol.ExitCause{}},
		{"second start", "type:RUN_STARTED wait", protocol.CodeWorkerProtocolError, "RUN_STARTED", protocol.ExitCause{}},
		{"unknown type", "type:OTHER wait", protocol.CodeWorkerProtocolError, "OTHER", protocol.ExitCause{}},
		{"event after the end", "type:RUN_FINISHED text wait", protocol.CodeWorkerProtocolError, "after its last", protocol.ExitCause{}},
		{"data is no object", "data:[1] wait", protocol.CodeWorkerProtocolError, "no object", protocol.ExitCause{}},
		{"another run's event", "other wait", protocol.CodeWorkerProtocolError, "not going", protocol.ExitCause{}},
		{"denied another run's", "denied:run_other wait", protocol.CodeWorkerProtocolError, "not going", protocol.ExitCause{}},
		{"denied at length", "denied-long wait", protocol.CodeWorkerProtocolError, "more than 512 bytes", protocol.ExitCause{}},
		{"decided another run's", "decided:run_other wait", protocol.CodeWorkerProtocolError, "not going", protocol.ExitCause{}},
		{"decided at length", "decided-long wait", protocol.CodeWorkerProtocolError, "too long", protocol.ExitCause{}},
		{"decided nothing", "decided-nothing wait", protocol.CodeWorkerProtocolError, "decision is none", protocol.ExitCause{}},
		{"result without an end", "quiet", protocol.CodeWorkerProtocolError, "last event", protocol.ExitCause{}},
		{"result of a wrong shape", "shape", protocol.CodeWorkerProtocolError, "result of execute", protocol.ExitCause{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := Options{PingInterval: 10 * time.Second, PingTimeout: 5 * time.Second}
			inBubble(t, o, func(t *testing.T, r *rig) {
				neighbour := r.execute(t.Context(), r.acquire("ann"), "wait")
				l := r.acquire("ann")
				_, err := l.Execute(t.Context(), protocol.ExecuteParams{RunID: "run_x", Message: tt.message}, nothing)
				l.Release()
				<-neighbour.done
				for who, err := range map[string]error{"run": err, "its neighbour": neighbour.err} {
					wantCode(t, err, tt.code)
					death, ok := errors.AsType[*DeathError](err)
					if !ok {
						t.Errorf("%s: %T %v", who, err, err)
						continue
					}
					if !strings.Contains(death.Err.Message, tt.text) {
						t.Errorf("%s: message is %q, want %q in it", who, death.Err.Message, tt.text)
					}
					// describe tells every field of a cause that is set.
					if describe(death.Cause) != describe(tt.cause) {
						t.Errorf("%s: cause is %+v", who, death.Cause)
					}
				}
				again := r.execute(t.Context(), r.acquire("ann"), "ok")
				if <-again.done; again.err != nil {
					t.Errorf("next run: %v", again.err)
				}
			})
		})
	}
}

func TestErrorOfTheAgentLeavesTheWorkerAlive(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, r *rig) {
		g := r.execute(t.Context(), r.acquire("ann"), "refuse")
		<-g.done
		wantCode(t, g.err, protocol.CodeDiskQuotaExceeded)
		if live, started := r.engine.count(); live != 1 || started != 1 {
			t.Errorf("%d live, %d started", live, started)
		}
	})
}

func TestDeathWhileIdleIsNotToldToAnybody(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, r *rig) {
		r.acquire("ann").Release()
		r.engine.last().die(protocol.ExitCause{Signal: "SIGSEGV"})
		synctest.Wait()
		if r.pool.InUse("ann") {
			t.Error("a dead worker is kept")
		}
		g := r.execute(t.Context(), r.acquire("ann"), "ok")
		if <-g.done; g.err != nil {
			t.Error(g.err)
		}
	})
}

func TestIdleWorkerThatHangsIsKilled(t *testing.T) {
	inBubble(t, Options{PingInterval: 10 * time.Second, PingTimeout: 5 * time.Second}, func(t *testing.T, r *rig) {
		r.acquire("ann").Release()
		time.Sleep(time.Minute)
		synctest.Wait()
		w := r.engine.last()
		if _, ok := r.pool.Sandbox("ann"); !ok {
			t.Fatal("a worker that answers was killed")
		}
		w.mu.Lock()
		w.stopped = true
		w.mu.Unlock()
		time.Sleep(16 * time.Second)
		synctest.Wait()
		if _, ok := r.pool.Sandbox("ann"); ok {
			t.Error("a worker that answers no ping lives")
		}
	})
}

func TestSlowSinkIsNotTakenForAHang(t *testing.T) {
	inBubble(t, Options{PingInterval: time.Second, PingTimeout: time.Second}, func(t *testing.T, r *rig) {
		l := r.acquire("ann")
		defer l.Release()
		result, err := l.Execute(t.Context(), protocol.ExecuteParams{RunID: "run_1", Message: "text text"},
			func(protocol.EventParams) error { time.Sleep(time.Minute); return nil })
		if err != nil || result.Content != "done" {
			t.Errorf("%+v, %v", result, err)
		}
	})
}

func TestErrorOfTheSinkEndsTheRunAndSparesTheWorker(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, r *rig) {
		l := r.acquire("ann")
		full := errors.New("disk full")
		calls := 0
		_, err := l.Execute(t.Context(), protocol.ExecuteParams{RunID: "run_1", Message: "text wait"},
			func(protocol.EventParams) error { calls++; return full })
		if !errors.Is(err, full) || calls != 1 {
			t.Errorf("%v after %d calls", err, calls)
		}
		l.Release()
		if _, started := r.engine.count(); started != 1 || !r.pool.InUse("ann") {
			t.Error("the worker was replaced")
		}
	})
}

func TestCanceledRunThatAnswersInItsGraceSparesTheWorker(t *testing.T) {
	stop := protocol.Errorf(protocol.CodeRunTimeout, "over 60 s")
	for message, took := range map[string]time.Duration{"wait": time.Minute, "slow-cancel": time.Minute + 6*time.Second} {
		inBubble(t, Options{}, func(t *testing.T, r *rig) {
			ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, stop)
			defer cancel()
			g := r.execute(ctx, r.acquire("ann"), message)
			<-g.done
			if !errors.Is(g.err, stop) || g.took != took {
				t.Errorf("%s: %v after %s", message, g.err, g.took)
			}
			if box, ok := r.pool.Sandbox("ann"); !ok || box.State != protocol.SandboxIdle {
				t.Errorf("%s: the worker was replaced", message)
			}
		})
	}
}

func TestDeafRunIsKilledAfterItsGraceWithTheWorker(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, r *rig) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		g := r.execute(ctx, r.acquire("ann"), "deaf")
		neighbour := r.execute(t.Context(), r.acquire("ann"), "wait")
		<-g.done
		wantCode(t, g.err, protocol.CodeRunTimeout)
		if g.took != time.Minute+7*time.Second {
			t.Errorf("took %s", g.took)
		}
		<-neighbour.done
		wantCode(t, neighbour.err, protocol.CodeWorkerCrashed)
		if death, ok := errors.AsType[*DeathError](neighbour.err); !ok || !death.Cause.NoAnswer {
			t.Errorf("neighbour: %v", neighbour.err)
		}
		again := r.execute(t.Context(), r.acquire("ann"), "ok")
		if <-again.done; again.err != nil {
			t.Error(again.err)
		}
	})
}

func TestCancelWhileTheWorkerDiesBlamesNobodyElse(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, r *rig) {
		ctx, cancel := context.WithCancel(t.Context())
		g := r.execute(ctx, r.acquire("ann"), "deaf")
		neighbour := r.execute(t.Context(), r.acquire("ann"), "wait")
		cancel()
		synctest.Wait()
		r.engine.last().die(protocol.ExitCause{OOMKill: true})
		<-g.done
		<-neighbour.done
		wantCode(t, g.err, protocol.CodeCanceled)
		wantCode(t, neighbour.err, protocol.CodeOutOfMemory)
	})
}

func TestRetireCancelsRunsAndWaitersAndWaitsForTheEnd(t *testing.T) {
	inBubble(t, Options{MaxRunsPerUser: 1, QueueSize: 3}, func(t *testing.T, r *rig) {
		r.engine.reapDelay = time.Second
		g := r.execute(t.Context(), r.acquire("ann"), "wait")
		q := r.request("ann")
		if err := r.pool.Retire(t.Context(), "ann"); err != nil {
			t.Fatal(err)
		}
		<-g.done
		wantCode(t, g.err, protocol.CodeCanceled)
		if !q.answered() {
			t.Fatal("still waits")
		}
		wantCode(t, q.err, protocol.CodeCanceled)
		if live, _ := r.engine.count(); live != 0 || r.pool.InUse("ann") {
			t.Error("the worker is not gone")
		}
		if err := r.pool.Retire(t.Context(), "nobody"); err != nil {
			t.Error(err)
		}
	})
}

func TestRetireKillsWhatOutlastsItsContext(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, r *rig) {
		g := r.execute(t.Context(), r.acquire("ann"), "deaf")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := r.pool.Retire(ctx, "ann"); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		<-g.done
		wantCode(t, g.err, protocol.CodeCanceled)
	})
}

func TestRetireEndsAStartUnderWay(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, r *rig) {
		r.engine.startDelay = 20 * time.Second
		q := r.request("ann")
		if err := r.pool.Retire(t.Context(), "ann"); err != nil {
			t.Fatal(err)
		}
		if !q.answered() {
			t.Fatal("still waits")
		}
		wantCode(t, q.err, protocol.CodeCanceled)
		r.engine.startDelay = 0
		r.acquire("ann").Release() // The start that was ended is no failure.
	})
}

func TestShutdownDrainsAndTurnsAway(t *testing.T) {
	inBubble(t, Options{MaxWorkers: 3, Warm: 1, MaxRunsPerUser: 1, QueueSize: 5}, func(t *testing.T, r *rig) {
		l := r.acquire("ann")
		r.acquire("bob").Release()
		q := r.request("ann")
		done := make(chan error, 1)
		go func() { done <- r.pool.Shutdown(t.Context()) }()
		if !q.answered() {
			t.Fatal("still waits")
		}
		wantCode(t, q.err, protocol.CodeShuttingDown)
		_, err := r.pool.Acquire(t.Context(), "cay", AcquireOptions{})
		wantCode(t, err, protocol.CodeShuttingDown)
		if live, _ := r.engine.count(); live != 1 {
			t.Errorf("%d workers live, want ann's", live)
		}
		if _, err := l.Execute(t.Context(), protocol.ExecuteParams{RunID: "run_1", Message: "ok"}, nothing); err != nil {
			t.Errorf("the going run: %v", err)
		}
		l.Release()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := <-r.ran; err != nil { // Run ends by itself.
			t.Error(err)
		}
		r.ran <- nil
	})
}

func TestHurriedShutdownKills(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, r *rig) {
		g := r.execute(t.Context(), r.acquire("ann"), "deaf")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := r.pool.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		<-g.done
		wantCode(t, g.err, protocol.CodeShuttingDown)
		if g.took != time.Second {
			t.Errorf("took %s", g.took)
		}
	})
}

func TestShutdownTellsOfAProcessThatCannotBeKilled(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, r *rig) {
		r.engine.reapDelay = time.Hour
		r.acquire("ann").Release()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		if err := r.pool.Shutdown(ctx); err == nil || time.Since(began) != time.Second+reaping {
			t.Errorf("%v after %s", err, time.Since(began))
		}
		time.Sleep(time.Hour)
	})
}

func TestEndOfRunsContextKillsEverything(t *testing.T) {
	inBubble(t, Options{Warm: 2, MaxRunsPerUser: 1, QueueSize: 2}, func(t *testing.T, r *rig) {
		g := r.execute(t.Context(), r.acquire("ann"), "deaf")
		q := r.request("ann")
		r.stop()
		<-g.done
		wantCode(t, g.err, protocol.CodeShuttingDown)
		if !q.answered() {
			t.Fatal("still waits")
		}
		wantCode(t, q.err, protocol.CodeShuttingDown)
		_, err := r.pool.Acquire(t.Context(), "bob", AcquireOptions{})
		wantCode(t, err, protocol.CodeShuttingDown)
	})
}

func TestIllegalTransitionPanics(t *testing.T) {
	for from := range workerStates {
		for to := range workerStates {
			if workerState(from).mayBecome(workerState(to)) {
				continue
			}
			func() {
				defer func() {
					if recover() == nil {
						t.Errorf("%s to %s is allowed", workerState(from), workerState(to))
					}
				}()
				s := &state{}
				s.become(&worker{state: workerState(from)}, workerState(to))
			}()
		}
	}
}
