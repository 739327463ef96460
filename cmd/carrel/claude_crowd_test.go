package main

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"carrel/client"
	"carrel/internal/anthropictest"
	"carrel/internal/ordeal"
	"carrel/protocol"
)

// crowd is so many runs at once, of as many users; no answer begins before all have
// been asked for. Each has so many deltas.
type crowd struct{ runs, users, deltas int }

// A hundred runs stream at once, four a user's worker. Each gets the answer to its
// own message, whole and in order. (BenchmarkCrowd has a worker for each.)
func TestHundredRunsStreamAtOnce(t *testing.T) {
	crowd{runs: 100, users: 25, deltas: 100}.gather(t)
}

// BenchmarkCrowd has a hundred workers stream at once.
func BenchmarkCrowd(b *testing.B) {
	c := crowd{runs: 100, users: 100, deltas: 1000}
	var streaming time.Duration
	for b.Loop() {
		streaming += c.gather(b)
	}
	b.ReportMetric(float64(c.runs*c.deltas*b.N)/streaming.Seconds(), "deltas/s")
}

// gather runs them, and tells how long they streamed.
func (c crowd) gather(t testing.TB) time.Duration {
	t.Helper()
	all, start := make(chan struct{}), time.Time{}
	var asked atomic.Int64
	model := anthropictest.New(t, anthropictest.Options{Key: canary, Otherwise: func(q *anthropictest.Request) anthropictest.Reply {
		if asked.Add(1) == int64(c.runs) {
			start = time.Now()
			close(all)
		}
		select {
		case <-all:
		case <-t.Context().Done():
		}
		return anthropictest.Say(c.answer(q.Last().Text())...).Reply
	}})
	d := ordeal.Serve(t, t.TempDir(), "ANTHROPIC_API_KEY="+canary, "ANTHROPIC_BASE_URL="+model.URL, "CARREL_LOG_LEVEL=warn",
		fmt.Sprint("SANDBOX_MAX_WORKERS=", c.users), "SANDBOX_WARM_WORKERS=0", "SANDBOX_QUEUE_TIMEOUT=120s", "SANDBOX_STARTUP_TIMEOUT=120s")
	got, errs := make([]string, c.runs), make([]error, c.runs)
	var readers sync.WaitGroup
	for i := range c.runs {
		readers.Go(func() {
			got[i], errs[i] = streamed(t, d.Client, fmt.Sprint("user-", i%c.users), fmt.Sprint("message-", i))
		})
	}
	readers.Wait()
	took := time.Since(start)
	for i := range c.runs {
		if want := strings.Join(c.answer(fmt.Sprint("message-", i)), ""); errs[i] != nil || got[i] != want {
			t.Errorf("run %d got %d bytes of %d, %v: %.200s…", i, len(got[i]), len(want), errs[i], got[i])
		}
	}
	d.Stop()
	return took
}

// answer is what the model says to a message.
func (c crowd) answer(message string) []string {
	pieces := make([]string, c.deltas)
	for i := range pieces {
		pieces[i] = fmt.Sprint(message, ":", i, " ")
	}
	return pieces
}

// streamed runs a message and puts its text together as it comes.
func streamed(t testing.TB, c *client.Client, user, message string) (string, error) {
	run, err := c.Execute(t.Context(), protocol.ExecuteRequest{UserID: user, Message: message}, client.ExecuteOptions{})
	if err != nil {
		return "", err
	}
	var all strings.Builder
	var last protocol.Event
	for ev, err := range c.Events(t.Context(), run.RunID, 0) {
		if err != nil {
			return "", err
		}
		if ev.Seq != last.Seq+1 {
			return "", fmt.Errorf("event %d after %d", ev.Seq, last.Seq)
		}
		last = ev
		if ev.Type == protocol.EventTextDelta {
			delta, err := decode[protocol.TextDelta](ev)
			if err != nil {
				return "", err
			}
			all.WriteString(delta.Text)
		}
	}
	if last.Type != protocol.EventRunFinished {
		return "", fmt.Errorf("the run ended with %s", last.Data)
	}
	return all.String(), nil
}
