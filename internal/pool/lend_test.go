package pool

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"carrel/protocol"
)

func TestIdleWorkerIsReusedBySameUser(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, r *rig) {
		for range 3 {
			l := r.acquire("ann")
			var ev events
			result, err := l.Execute(t.Context(), protocol.ExecuteParams{RunID: "run_1", Message: "text"}, ev.sink)
			if err != nil || result.Content != "done" {
				t.Fatalf("Execute: %+v, %v", result, err)
			}
			l.Release()
			if diff := cmp.Diff([]string{"1 RUN_STARTED", "2 TEXT_DELTA", "3 RUN_FINISHED"}, ev.seen); diff != "" {
				t.Error(diff)
			}
		}
		if diff := cmp.Diff([]string{"ann"}, r.engine.users()); diff != "" {
			t.Errorf("workers started: %s", diff)
		}
		box, ok := r.pool.Sandbox("ann")
		if !ok || box.State != protocol.SandboxIdle || box.Runs != 3 || box.PID != 1001 {
			t.Errorf("sandbox is %+v, %v", box, ok)
		}
	})
}

func TestRunsOfOneUserShareOneWorkerUpToTheLimit(t *testing.T) {
	inBubble(t, Options{MaxRunsPerUser: 2, QueueSize: 10}, func(t *testing.T, r *rig) {
		first, second := r.acquire("ann"), r.acquire("ann")
		third := r.request("ann")
		if third.answered() {
			t.Fatal("a third run was lent a worker that has two")
		}
		if other := r.request("bob"); !other.answered() {
			t.Error("the waiting run blocks another user")
		}
		first.Release()
		if !third.answered() || third.err != nil {
			t.Fatalf("third run after a release: %v", third.err)
		}
		second.Release()
		if diff := cmp.Diff([]string{"ann", "bob"}, r.engine.users()); diff != "" {
			t.Error(diff)
		}
	})
}

func TestWarmWorkersAreClaimedRefilledAndNeverBoundAgain(t *testing.T) {
	inBubble(t, Options{Warm: 2, MaxWorkers: 5}, func(t *testing.T, r *rig) {
		synctest.Wait()
		if f := r.pool.Figures(); f.Warm != 2 || f.Workers != 2 {
			t.Fatalf("figures at the start: %+v", f)
		}
		r.engine.startDelay = time.Second
		q := r.request("ann")
		if !q.answered() {
			t.Fatal("claiming a warm worker had to wait for a start")
		}
		q.lease.Release()
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if f := r.pool.Figures(); f.Warm != 2 || f.Workers != 3 {
			t.Errorf("figures after the claim: %+v", f)
		}
		for _, spec := range r.engine.specs {
			if spec.UserID != "" {
				t.Errorf("a worker was started for %q", spec.UserID)
			}
		}
	})
}

func TestWarmWorkerIsNotStartedBesideAUsersFirstEvents(t *testing.T) {
	inBubble(t, Options{Warm: 2, MaxWorkers: 5}, func(t *testing.T, r *rig) {
		live := func(why string, want int) {
			t.Helper()
			synctest.Wait()
			if f := r.pool.Figures(); f.Workers != want {
				t.Errorf("%s there are %d workers, want %d", why, f.Workers, want)
			}
		}
		live("at the start", 2)
		r.acquire("ann").Release()
		live("when the first has been claimed", 2)
		time.Sleep(refillPause)
		live("after the pause", 3)
		r.acquire("ben").Release()
		r.acquire("cay").Release()
		live("when none is left, at once", 4)
		time.Sleep(refillPause)
		live("after the next pause", 5)
	})
}

func TestWarmWorkersAreNotStartedWhileAUserWaitsForAStart(t *testing.T) {
	inBubble(t, Options{Warm: 1, MaxWorkers: 5}, func(t *testing.T, r *rig) {
		synctest.Wait()
		r.engine.startDelay = time.Second
		r.acquire("ann").Release() // Claims the warm one; the refill is under way.
		ben, cay := r.request("ben"), r.request("cay")
		time.Sleep(time.Second)
		if !ben.answered() || !cay.answered() {
			t.Error("users' starts waited for the refill")
		}
		ben.lease.Release()
		cay.lease.Release()
	})
}

func TestLongestIdleWorkerOfAnotherIsRetiredAtTheLimit(t *testing.T) {
	inBubble(t, Options{MaxWorkers: 2, QueueSize: 5}, func(t *testing.T, r *rig) {
		r.acquire("ann").Release()
		time.Sleep(time.Second)
		r.acquire("bob").Release()
		time.Sleep(time.Second)
		r.acquire("ann").Release() // Now bob's is idle for longer.
		r.acquire("cay").Release()
		if _, ok := r.pool.Sandbox("bob"); ok {
			t.Error("bob's worker still lives")
		}
		if _, ok := r.pool.Sandbox("ann"); !ok {
			t.Error("ann's worker was retired")
		}
	})
}

func TestReplacementBindsOnlyAfterTheOldTreeIsGone(t *testing.T) {
	inBubble(t, Options{MaxRequests: 2, QueueSize: 5}, func(t *testing.T, r *rig) {
		r.engine.reapDelay = time.Second // inBubble checks that no user has two.
		for range 5 {
			r.acquire("ann").Release()
		}
		if _, started := r.engine.count(); started != 3 {
			t.Errorf("%d workers served 5 runs at 2 each", started)
		}
	})
}

func TestWornWorkerTakesNoMoreRunsWhileItsLastOnesGo(t *testing.T) {
	inBubble(t, Options{MaxRequests: 2, QueueSize: 5}, func(t *testing.T, r *rig) {
		a, b := r.acquire("ann"), r.acquire("ann")
		if box, _ := r.pool.Sandbox("ann"); box.State != protocol.SandboxDraining {
			t.Errorf("state is %s", box.State)
		}
		c := r.request("ann")
		a.Release()
		if c.answered() {
			t.Error("lent a worn worker")
		}
		b.Release()
		if !c.answered() {
			t.Error("the replacement did not come")
		}
		c.lease.Release()
	})
}

func TestWorkerPastTheMemoryMarkIsReplacedBetweenRuns(t *testing.T) {
	inBubble(t, Options{MemoryMarkBytes: 100}, func(t *testing.T, r *rig) {
		r.acquire("ann").Release()
		r.acquire("ann").Release()
		if _, started := r.engine.count(); started != 1 {
			t.Fatalf("%d workers started below the mark", started)
		}
		r.engine.memory = 101
		r.acquire("ann").Release()
		r.acquire("ann").Release()
		if _, started := r.engine.count(); started != 2 {
			t.Errorf("%d workers started past the mark", started)
		}
	})
}

func TestLeaseTellsOfCommandsKilledForMemorySinceItsRunBegan(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, r *rig) {
		r.engine.oomKills = 3 // of earlier runs
		l := r.acquire("ann")
		defer l.Release()
		if _, err := l.Execute(t.Context(), protocol.ExecuteParams{RunID: "run_1", Message: "ok"}, func(protocol.EventParams) error { return nil }); err != nil {
			t.Fatal(err)
		}
		if l.LostToMemory() {
			t.Error("earlier kills are told as this run's")
		}
		r.engine.oomKills = 4
		if !l.LostToMemory() {
			t.Error("a kill during the run is not told")
		}
	})
}

func TestIdleWorkerIsRetiredAfterIdleTimeout(t *testing.T) {
	inBubble(t, Options{IdleTimeout: 300 * time.Second}, func(t *testing.T, r *rig) {
		l := r.acquire("ann")
		time.Sleep(time.Hour) // Busy workers do not age.
		l.Release()
		time.Sleep(200 * time.Second)
		r.acquire("ann").Release() // Use makes it young again.
		r.acquire("bob").Release()
		time.Sleep(300*time.Second - 1)
		synctest.Wait()
		if live, _ := r.engine.count(); live != 2 {
			t.Fatalf("%d workers live before the timeout", live)
		}
		time.Sleep(1 * time.Nanosecond)
		synctest.Wait()
		if live, _ := r.engine.count(); live != 0 {
			t.Errorf("%d workers live after the timeout", live)
		}
		if r.pool.InUse("ann") {
			t.Error("an idle user still counts as in use")
		}
		r.acquire("ann").Release() // And comes back.
	})
}

func TestStubbornIdleWorkerIsKilledAfterItsExitGrace(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, r *rig) {
		r.engine.stubborn = true
		r.acquire("ann").Release()
		began := time.Now()
		if err := r.pool.Retire(t.Context(), "ann"); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took != exitGrace {
			t.Errorf("retiring took %s", took)
		}
	})
}

func TestAcquireBeforeRunWaitsForIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &fakeEngine{ctx: t.Context(), byUser: make(map[string]int), version: protocol.Version}
		r := &rig{t: t, engine: e, pool: New(e, Options{QueueSize: 1})}
		q := r.request("ann")
		if q.answered() {
			t.Fatal("lent before Run")
		}
		ctx, stop := context.WithCancel(t.Context())
		ran := make(chan error, 1)
		go func() { ran <- r.pool.Run(ctx) }()
		if !q.answered() || q.err != nil {
			t.Errorf("after Run: %v", q.err)
		}
		stop()
		if err := <-ran; err != nil {
			t.Error(err)
		}
		if err := r.pool.Run(t.Context()); err == nil {
			t.Error("a second Run was accepted")
		}
	})
}

func TestExecStreamsItsOutput(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, r *rig) {
		l := r.acquire("ann")
		defer l.Release()
		var got []string
		params := protocol.ExecParams{ExecRequest: protocol.ExecRequest{Command: protocol.Command{Shell: "echo hello"}}}
		result, err := l.Exec(t.Context(), params, func(out protocol.ExecOutputParams) error {
			got = append(got, fmt.Sprint(out.Type, " ", out.Text))
			return nil
		})
		if err != nil || result.Stdout != "hello" {
			t.Errorf("Exec: %+v, %v", result, err)
		}
		if diff := cmp.Diff([]string{"STDOUT hello"}, got); diff != "" {
			t.Error(diff)
		}
		if _, err := l.Exec(t.Context(), params, nil); err != nil {
			t.Error(err)
		}
		params.Command.Shell = "unasked"
		_, err = l.Exec(t.Context(), params, nil)
		wantCode(t, err, protocol.CodeWorkerProtocolError)
	})
}

func TestApprovalIsAskedForTheRunsUserAndDeniedWhereNobodyCan(t *testing.T) {
	decide := func(_ context.Context, userID string, p protocol.ApproveParams) (protocol.ApproveResult, error) {
		return protocol.ApproveResult{Decision: "allow-" + userID + "-" + p.Tool}, nil
	}
	for want, approve := range map[string]func(context.Context, string, protocol.ApproveParams) (protocol.ApproveResult, error){
		`{"text":"allow-ann-bash"}`: decide,
		`{"text":"deny"}`:           nil,
	} {
		inBubble(t, Options{Approve: approve}, func(t *testing.T, r *rig) {
			l := r.acquire("ann")
			defer l.Release()
			var got string
			_, err := l.Execute(t.Context(), protocol.ExecuteParams{RunID: "run_1", Message: "ask"}, func(ev protocol.EventParams) error {
				if ev.Type == protocol.EventTextDelta {
					got = string(ev.Data)
				}
				return nil
			})
			if err != nil || got != want {
				t.Errorf("got %s, %v; want %s", got, err, want)
			}
		})
	}
}

func TestWebhookIsAskedForTheRunsUserAndARunThatGoes(t *testing.T) {
	ask := func(_ context.Context, userID string, _ protocol.HookParams) (protocol.HookResult, error) {
		return protocol.HookResult{Decision: "deny-" + userID}, nil
	}
	for _, tt := range []struct {
		message, want string
		hook          func(context.Context, string, protocol.HookParams) (protocol.HookResult, error)
	}{
		{"hook:run_1", `{"text":"deny-ann"}`, ask},
		{"hook:run_2", `{"text":"not_found"}`, ask},
		{"hook:run_1", `{"text":"not_found"}`, nil},
	} {
		inBubble(t, Options{Hook: tt.hook}, func(t *testing.T, r *rig) {
			l := r.acquire("ann")
			defer l.Release()
			var got string
			_, err := l.Execute(t.Context(), protocol.ExecuteParams{RunID: "run_1", Message: tt.message}, func(ev protocol.EventParams) error {
				if ev.Type == protocol.EventTextDelta {
					got = string(ev.Data)
				}
				return nil
			})
			if err != nil || got != tt.want {
				t.Errorf("%s: got %s, %v; want %s", tt.message, got, err, tt.want)
			}
		})
	}
}

func TestPressureRetiresTheLongestIdleAndElseLetsWait(t *testing.T) {
	var room atomic.Int64
	room.Store(2)
	inBubble(t, Options{QueueSize: 5, QueueTimeout: time.Minute}, func(t *testing.T, r *rig) {
		r.pool.o.Pressure = func() Pressure {
			live, _ := r.engine.count()
			return Pressure{NoRoom: live >= int(room.Load())}
		}
		r.acquire("ann").Release()
		bob := r.acquire("bob")
		cay := r.request("cay")
		if !cay.answered() {
			t.Fatal("no idle worker was retired for cay")
		}
		if _, ok := r.pool.Sandbox("ann"); ok {
			t.Error("ann's idle worker still lives")
		}
		dan := r.request("dan")
		if dan.answered() {
			t.Fatal("started without room")
		}
		room.Store(3)
		time.Sleep(pressurePoll)
		if !dan.answered() || dan.err != nil {
			t.Errorf("with room again: %v", dan.err)
		}
		bob.Release()
		cay.lease.Release()
		dan.lease.Release()
	})
}

func TestStartThatFoundNoRoomCostsNoTurn(t *testing.T) {
	var full atomic.Bool
	full.Store(true)
	o := Options{MaxWorkers: 1, QueueSize: 5, Pressure: func() Pressure { return Pressure{NoRoom: full.Load()} }}
	inBubble(t, o, func(t *testing.T, r *rig) {
		ann, bob := r.request("ann"), r.request("bob")
		time.Sleep(3*pressurePoll + pressurePoll/2) // An odd number of tries: neither stands in front by chance.
		full.Store(false)
		time.Sleep(pressurePoll)
		if !ann.answered() || bob.answered() {
			t.Fatal("want ann served, who came first, and bob waiting")
		}
		ann.lease.Release()
		if !bob.answered() {
			t.Fatal("bob still waits")
		}
		bob.lease.Release()
	})
}

func TestDenialsAndDecisionsAreToldOfTheRunsUser(t *testing.T) {
	var told []string
	o := Options{
		Denied:  func(userID string, p protocol.DeniedParams) { told = append(told, userID+" "+p.RunID+" "+p.Layer) },
		Decided: func(userID string, p protocol.DecidedParams) { told = append(told, userID+" "+p.RunID+" "+p.Tool) },
	}
	for _, o := range []Options{o, {}} { // and nobody need want to know
		inBubble(t, o, func(t *testing.T, r *rig) {
			l := r.acquire("ann")
			defer l.Release()
			if _, err := l.Execute(t.Context(), protocol.ExecuteParams{RunID: "run_1", Message: "denied decided"}, nothing); err != nil {
				t.Error(err)
			}
		})
	}
	if want := []string{"ann run_1 landlock", "ann run_1 bash"}; !slices.Equal(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}
}
