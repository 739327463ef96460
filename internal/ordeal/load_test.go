package ordeal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"carrel/client"
	"carrel/protocol"
)

const (
	loadUsers   = 200
	loadWorkers = 10
	// loadClients ask at a time: some more than there are workers and places in the
	// queue, so that the promised 429 is given, and kept.
	loadClients, loadQueue = 24, 12
	// flatAfter is how long a load must be for its memory to be judged: the first
	// minute is still a growing one.
	flatAfter = 3 * time.Minute
)

// CARREL_TEST_LOAD is how many seconds the load lasts. From three minutes on, the
// daemon's memory and descriptors must be the same in the second minute and the last.
func TestManyUsersInRotationThroughFewWorkersMeetNoError(t *testing.T) {
	length := time.Duration(number(t, "CARREL_TEST_LOAD", 6)) * time.Second
	d := Serve(t, t.TempDir(), fmt.Sprintf("SANDBOX_MAX_WORKERS=%d", loadWorkers), fmt.Sprintf("SANDBOX_QUEUE_SIZE=%d", loadQueue), "CARREL_LOG_LEVEL=warn")
	l := &load{t: t, client: d.Client}
	ctx, cancel := context.WithTimeout(t.Context(), length)
	defer cancel()
	var wg sync.WaitGroup
	for range loadClients {
		wg.Go(func() { l.ask(ctx) })
	}
	samples := sample(ctx, d.Cmd.Process.Pid)
	wg.Wait()
	t.Logf("%d users, %d workers, %s: %d runs, %d execs (%.0f/s), %d promised refusals",
		loadUsers, loadWorkers, length, l.runs.Load(), l.execs.Load(), float64(l.runs.Load()+l.execs.Load())/length.Seconds(), l.refused.Load())
	if l.runs.Load() == 0 || l.execs.Load() == 0 {
		t.Error("nothing was done")
	}
	flat(t, samples, length)
	d.Stop()
}

type load struct {
	t      *testing.T
	client *client.Client
	turn   atomic.Int64

	runs, execs, refused atomic.Int64
}

// ask makes runs and execs of one user after the other until ctx ends. What has been
// begun is finished.
func (l *load) ask(ctx context.Context) {
	for ctx.Err() == nil {
		turn := l.turn.Add(1)
		user := fmt.Sprintf("user-%03d", turn%loadUsers)
		var err error
		if turn%2 == 0 {
			err = l.run(user)
		} else {
			err = l.exec(user)
		}
		refusal, ok := errors.AsType[*protocol.Error](err)
		switch {
		case err == nil:
		case ok && refusal.Code.HTTPStatus() == 429:
			l.refused.Add(1)
			wait := time.NewTimer(refusal.RetryAfter)
			select {
			case <-wait.C:
			case <-ctx.Done():
				wait.Stop()
			}
		default:
			l.t.Errorf("%s: %v", user, err)
		}
	}
}

func (l *load) exec(user string) error {
	result, err := l.client.Exec(l.t.Context(), user, protocol.ExecRequest{Command: protocol.Command{Shell: "echo $SANDBOX_USER_ID"}})
	if err != nil {
		if e, ok := errors.AsType[*protocol.Error](err); ok && e.Code == protocol.CodeQueueFull && e.RetryAfter <= 0 {
			return fmt.Errorf("no word on when to come back: %w", err)
		}
		return err
	}
	if result.Stdout != user+"\n" {
		return fmt.Errorf("its command gave %+v", result)
	}
	l.execs.Add(1)
	return nil
}

func (l *load) run(user string) error {
	run, err := l.client.Execute(l.t.Context(), protocol.ExecuteRequest{UserID: user, Message: "echo $SANDBOX_USER_ID"}, client.ExecuteOptions{})
	if err != nil {
		return err
	}
	var last protocol.Event
	for ev, err := range l.client.Events(l.t.Context(), run.RunID, 0) {
		if err != nil {
			return err
		}
		last = ev
	}
	if last.Type == protocol.EventRunError {
		var e protocol.RunError
		if err := json.Unmarshal(last.Data, &e); err != nil {
			return err
		}
		return protocol.Errorf(e.Code, "%s", e.Message)
	}
	var result protocol.Result
	if err := json.Unmarshal(last.Data, &result); err != nil || result.Content != user+"\n" {
		return fmt.Errorf("its run gave %+v, %w", result, err)
	}
	l.runs.Add(1)
	return nil
}

// look is what a daemon holds at a moment.
type look struct {
	memory int64 // bytes
	open   int   // descriptors
}

// sample looks at a process twice a second until ctx ends.
func sample(ctx context.Context, pid int) []look {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	var looks []look
	for {
		select {
		case <-ctx.Done():
			return looks
		case <-tick.C:
			looks = append(looks, look{Resident(pid), descriptors(pid)})
		}
	}
}

// flat compares the second minute with the last one; in a short load, the second
// quarter with the last.
func flat(t *testing.T, looks []look, length time.Duration) {
	t.Helper()
	window := min(120, len(looks)/4)
	if window == 0 {
		t.Fatal("the load was too short to look at the daemon")
	}
	second, last := median(looks[window:2*window]), median(looks[len(looks)-window:])
	t.Logf("daemon, second part and last: resident %.1f and %.1f MiB, descriptors %d and %d",
		mib(second.memory), mib(last.memory), second.open, last.open)
	if length < flatAfter {
		return
	}
	if last.memory > second.memory+second.memory/10 {
		t.Errorf("the daemon's memory grew from %.1f to %.1f MiB", mib(second.memory), mib(last.memory))
	}
	const few = 8 // connections and starts of the moment
	if last.open > second.open+few {
		t.Errorf("the daemon's descriptors grew from %d to %d", second.open, last.open)
	}
}

func median(looks []look) look {
	memory, open := make([]int64, len(looks)), make([]int, len(looks))
	for i, l := range looks {
		memory[i], open[i] = l.memory, l.open
	}
	slices.Sort(memory)
	slices.Sort(open)
	return look{memory[len(memory)/2], open[len(open)/2]}
}

func mib(bytes int64) float64 { return float64(bytes) / (1 << 20) }
