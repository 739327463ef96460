package pool

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"carrel/protocol"
)

func TestThousandWaitingRunsDoNotDelayAnotherUsersFirst(t *testing.T) {
	o := Options{MaxWorkers: 1, MaxRunsPerUser: 2, QueueSize: 2000, QueueTimeout: time.Hour}
	inBubble(t, o, func(t *testing.T, r *rig) {
		a, b := r.acquire("ann"), r.acquire("ann")
		var waiting []*pending
		for range 1000 {
			waiting = append(waiting, r.request("ann"))
		}
		bob := r.request("bob")
		a.Release()
		if waiting[0].answered() {
			t.Error("ann's next run was served before bob's first")
		}
		b.Release()
		if !bob.answered() || bob.err != nil {
			t.Fatalf("bob after the runs that went when he came: %v", bob.err)
		}
		bob.lease.Release()
		for i, q := range waiting {
			if !q.answered() {
				t.Fatalf("run %d of ann still waits", i)
			}
			q.lease.Release()
		}
	})
}

func TestBusyUserCannotKeepAWorkerByOverlappingRuns(t *testing.T) {
	inBubble(t, Options{MaxWorkers: 1, QueueSize: 10}, func(t *testing.T, r *rig) {
		a := r.acquire("ann")
		bob := r.request("bob")
		again := r.request("ann") // Her worker has room for it, but bob's turn is first.
		if again.answered() {
			t.Fatal("ann was lent before bob")
		}
		a.Release()
		if !bob.answered() || again.answered() {
			t.Fatal("want bob served and ann waiting")
		}
		bob.lease.Release()
		if !again.answered() || again.err != nil {
			t.Errorf("ann after bob: %v", again.err)
		}
		again.lease.Release()
	})
}

func TestUserOfAWornOrCrashedWorkerStandsBehindWhoWaits(t *testing.T) {
	for name, end := range map[string]func(*rig, *Lease){
		"worn":    func(_ *rig, l *Lease) { l.Release() },
		"crashed": func(r *rig, l *Lease) { r.engine.last().die(protocol.ExitCause{Signal: "SIGKILL"}); l.Release() },
	} {
		t.Run(name, func(t *testing.T) {
			o := Options{MaxWorkers: 1, MaxRequests: 1, MaxRunsPerUser: 1, QueueSize: 10}
			inBubble(t, o, func(t *testing.T, r *rig) {
				held := r.acquire("ann")
				again, bob := r.request("ann"), r.request("bob")
				end(r, held)
				if !bob.answered() || again.answered() {
					t.Fatal("ann got another turn before bob's first")
				}
				bob.lease.Release()
				if !again.answered() {
					t.Fatal("ann still waits")
				}
				again.lease.Release()
			})
		})
	}
}

func TestOnlyAsManyWorkersYieldAsUsersWait(t *testing.T) {
	inBubble(t, Options{MaxWorkers: 2, QueueSize: 10}, func(t *testing.T, r *rig) {
		ann, bob := r.acquire("ann"), r.acquire("bob")
		cay := r.request("cay")
		a := r.request("ann") // Yields.
		b := r.request("bob") // One does already.
		if a.answered() || !b.answered() {
			t.Fatalf("answered: ann %v, bob %v", a.answered(), b.answered())
		}
		cay.cancel()
		if !a.answered() || a.err != nil {
			t.Errorf("ann after cay has left: %v", a.err)
		}
		for _, l := range []*Lease{ann, bob, a.lease, b.lease} {
			l.Release()
		}
	})
}

func TestUsersAreServedInTurnAndRunsInOrder(t *testing.T) {
	o := Options{MaxWorkers: 1, MaxRunsPerUser: 1, QueueSize: 10, QueueTimeout: time.Hour}
	inBubble(t, o, func(t *testing.T, r *rig) {
		held := r.acquire("zoe")
		var order []string
		all := make(map[string]*pending)
		for _, q := range []struct{ name, user string }{{"a1", "ann"}, {"a2", "ann"}, {"a3", "ann"}, {"b1", "bob"}, {"b2", "bob"}, {"c1", "cay"}} {
			all[q.name] = r.request(q.user)
		}
		if diff := cmp.Diff([]int{2, 3, 4}, all["a2"].places); diff != "" {
			t.Errorf("places told to a2, which b1 and c1 go before (-want +got): %s", diff)
		}
		held.Release()
		for len(all) > 0 {
			synctest.Wait()
			served := ""
			for name, q := range all {
				if q.answered() {
					served += name
					q.lease.Release()
					delete(all, name)
					break
				}
			}
			order = append(order, served)
		}
		if diff := cmp.Diff([]string{"a1", "b1", "c1", "a2", "b2", "a3"}, order); diff != "" {
			t.Error(diff)
		}
	})
}

func TestFullQueueRefusesWithRetryAfter(t *testing.T) {
	inBubble(t, Options{MaxWorkers: 1, QueueSize: 2, QueueTimeout: time.Minute}, func(t *testing.T, r *rig) {
		held := r.acquire("ann")
		b, c := r.request("bob"), r.request("cay")
		d := r.request("dan")
		if !d.answered() {
			t.Fatal("the queue is longer than its size")
		}
		wantCode(t, d.err, protocol.CodeQueueFull)
		if e := d.err.(*protocol.Error); e.RetryAfter < minPatience || e.RetryAfter > maxPatience { //nolint:errorlint // as Acquire says
			t.Errorf("RetryAfter is %s", e.RetryAfter)
		}
		if n := r.pool.Figures().Queued; n != 2 {
			t.Errorf("%d queued", n)
		}
		held.Release()
		for _, q := range []*pending{b, c} {
			if !q.answered() {
				t.Fatal("still waits")
			}
			q.lease.Release()
		}
	})
}

func TestNobodyFillsTheQueueAgainstOthers(t *testing.T) {
	inBubble(t, Options{MaxWorkers: 1, MaxRunsPerUser: 1, QueueSize: 3, QueueTimeout: time.Hour}, func(t *testing.T, r *rig) {
		held := r.acquire("ann")
		ann := []*pending{r.request("ann"), r.request("ann"), r.request("ann")}
		bob := r.request("bob")
		if bob.answered() || !ann[2].answered() || ann[1].answered() {
			t.Fatal("the newest of who has the most waiting should have made room")
		}
		wantCode(t, ann[2].err, protocol.CodeQueueFull)
		second := r.request("bob") // each has two then, and it is bob who comes last
		if !second.answered() || ann[1].answered() {
			t.Error("bob has as many waiting as ann, and took from her all the same")
		}
		wantCode(t, second.err, protocol.CodeQueueFull)
		held.Release()
		for _, q := range []*pending{bob, ann[0], ann[1]} {
			if !q.answered() {
				t.Fatal("still waits")
			}
			q.lease.Release()
		}
	})
}

func TestStartsUnderWayDoNotFillTheQueue(t *testing.T) {
	inBubble(t, Options{MaxWorkers: 5, QueueSize: 0}, func(t *testing.T, r *rig) {
		r.engine.startDelay = time.Second
		var all []*pending
		for _, u := range []string{"a", "b", "c", "d", "e"} {
			all = append(all, r.request(u))
		}
		time.Sleep(time.Second)
		for _, q := range all {
			if !q.answered() || q.err != nil {
				t.Fatal(q.err)
			}
			q.lease.Release()
		}
		// And neither does one for whom an idle worker is being retired.
		r.acquire("f").Release()
	})
}

func TestQueueTimeoutIsToldWithRetryAfterAndPlace(t *testing.T) {
	inBubble(t, Options{MaxWorkers: 1, QueueSize: 2, QueueTimeout: 30 * time.Second}, func(t *testing.T, r *rig) {
		held := r.acquire("ann")
		bob := r.request("bob")
		time.Sleep(30 * time.Second)
		if !bob.answered() || bob.took != 30*time.Second {
			t.Fatalf("answered %v after %s", bob.answered(), bob.took)
		}
		wantCode(t, bob.err, protocol.CodeQueueTimeout)
		if diff := cmp.Diff([]int{1}, bob.places); diff != "" {
			t.Error(diff)
		}
		held.Release()
	})
}

func TestQueueTimeoutSparesAStartUnderWay(t *testing.T) {
	inBubble(t, Options{QueueTimeout: time.Second, StartupTimeout: 10 * time.Second}, func(t *testing.T, r *rig) {
		r.engine.startDelay = 5 * time.Second
		q := r.request("ann")
		time.Sleep(5 * time.Second)
		if !q.answered() || q.err != nil {
			t.Fatalf("slow start: %v", q.err)
		}
		q.lease.Release()
		r.engine.startDelay = 20 * time.Second
		q = r.request("bob")
		time.Sleep(10 * time.Second)
		if !q.answered() {
			t.Fatal("start over its time, queue time over: still waiting")
		}
		wantCode(t, q.err, protocol.CodeWorkerStartFailed)
	})
}

func TestWaiterThatLeavesIsForgotten(t *testing.T) {
	inBubble(t, Options{MaxWorkers: 1, QueueSize: 2}, func(t *testing.T, r *rig) {
		held := r.acquire("ann")
		bob, cay := r.request("bob"), r.request("cay")
		bob.cancel()
		if !bob.answered() || bob.err == nil {
			t.Fatal("canceled Acquire still waits")
		}
		if r.pool.InUse("bob") {
			t.Error("bob is still known")
		}
		if diff := cmp.Diff([]int{2, 1}, cay.places); diff != "" {
			t.Error(diff)
		}
		held.Release()
		if !cay.answered() {
			t.Error("cay still waits")
		}
		cay.lease.Release()
	})
}
