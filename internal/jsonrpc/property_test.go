package jsonrpc_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"carrel/internal/jsonrpc"
)

// step is one thing that one of a side's streams does.
type step struct {
	Notify bool          // a notification, else a call
	Events int           // that the called side sends before its answer
	Work   time.Duration // of the called side, after its events
	Wait   time.Duration // before the caller cancels; 0 = never
}

// stream is steps one after the other; a side has several at once.
type stream []step

// side is one end under test, with the model beside it: what has to be there.
type side struct {
	conn *jsonrpc.Conn
	slow time.Duration // of each notification handled

	mu       sync.Mutex
	last     map[string]int // number of the last notification, by who sends it
	failures []error
}

type tagged struct {
	Tag    string
	N      int
	Events int
	Work   time.Duration
}

func (s *side) failf(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failures = append(s.failures, fmt.Errorf(format, args...))
}

// Notify checks that each tag's numbers come from 1, in order, without gaps.
func (s *side) Notify(_ context.Context, _ string, params json.RawMessage) error {
	var p tagged
	if err := json.Unmarshal(params, &p); err != nil {
		return err
	}
	time.Sleep(s.slow)
	s.mu.Lock()
	last := s.last[p.Tag]
	s.last[p.Tag] = p.N
	s.mu.Unlock()
	if p.N != last+1 {
		s.failf("%s: number %d follows %d", p.Tag, p.N, last)
	}
	return nil
}

func (s *side) Request(ctx context.Context, _ string, params json.RawMessage) (any, error) {
	var p tagged
	if err := json.Unmarshal(params, &p); err != nil {
		return nil, err
	}
	for i := range p.Events {
		if err := s.conn.Notify(ctx, "event", tagged{Tag: p.Tag, N: i + 1}); err != nil {
			return nil, context.Cause(ctx)
		}
	}
	select {
	case <-time.After(p.Work):
		return p, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (s *side) handled(tag string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last[tag]
}

// play runs one stream; name tells it from all others.
func (s *side) play(ctx context.Context, name string, steps stream) {
	notified := 0
	for i, st := range steps {
		if st.Notify {
			notified++
			if err := s.conn.Notify(ctx, "note", tagged{Tag: name, N: notified}); err != nil {
				s.failf("%s: %w", name, err)
			}
			continue
		}
		want := tagged{Tag: fmt.Sprintf("%s/%d", name, i), Events: st.Events, Work: st.Work}
		callCtx, cancel := ctx, context.CancelFunc(func() {})
		if st.Wait > 0 {
			callCtx, cancel = context.WithTimeout(ctx, st.Wait)
		}
		var got tagged
		err := s.conn.Call(callCtx, "work", want, &got)
		ended := callCtx.Err() != nil
		cancel()
		switch {
		case err == nil && got != want:
			s.failf("%s: answer %v, want %v", want.Tag, got, want)
		case err == nil && s.handled(want.Tag) != want.Events:
			s.failf("%s: answered after %d of %d events", want.Tag, s.handled(want.Tag), want.Events)
		case err != nil && (!ended || (!errors.Is(err, errCanceled) && !errors.Is(err, context.DeadlineExceeded))):
			s.failf("%s: %w", want.Tag, err)
		}
	}
}

func TestAnyInterleavingKeepsOrderAndEnds(t *testing.T) {
	steps := rapid.Custom(func(t *rapid.T) step {
		ms := func(name string, most int) time.Duration {
			return time.Duration(rapid.IntRange(0, most).Draw(t, name)) * time.Millisecond
		}
		return step{
			Notify: rapid.Bool().Draw(t, "notify"),
			Events: rapid.IntRange(0, 20).Draw(t, "events"),
			Work:   ms("work", 20),
			Wait:   ms("wait", 30),
		}
	})
	streams := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) stream {
		return rapid.SliceOfN(steps, 0, 8).Draw(t, "steps")
	}), 0, 4)
	rapid.Check(t, func(rt *rapid.T) {
		options := jsonrpc.Options{
			Queue:       rapid.IntRange(1, 4).Draw(rt, "queue"),
			CancelGrace: time.Duration(rapid.IntRange(1, 50).Draw(rt, "grace")) * time.Millisecond,
		}
		plans := [2][]stream{streams.Draw(rt, "host"), streams.Draw(rt, "worker")}
		slow := time.Duration(rapid.IntRange(0, 3).Draw(rt, "slow")) * time.Millisecond
		var failures []error
		// A wait for ever is a deadlock of the bubble, which synctest reports.
		synctest.Test(t, func(t *testing.T) {
			sides := [2]*side{{slow: slow, last: map[string]int{}}, {slow: slow, last: map[string]int{}}}
			p := connect(t.Context(), sides[0], sides[1], options)
			sides[0].conn, sides[1].conn = p.host, p.worker
			var wg sync.WaitGroup
			for i, s := range sides {
				for j, steps := range plans[i] {
					wg.Go(func() { s.play(t.Context(), fmt.Sprintf("%d.%d", i, j), steps) })
				}
			}
			wg.Wait()
			<-time.After(time.Second) // in the bubble: what is on its way, as a cancel is, arrives whole
			_ = p.hostEnd.WriteCloser.Close()
			p.wg.Wait()
			failures = append(append(sides[0].failures, sides[1].failures...), p.hostErr, p.workerErr)
		})
		if err := errors.Join(failures...); err != nil {
			rt.Fatal(err)
		}
	})
}
