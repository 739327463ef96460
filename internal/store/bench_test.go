package store_test

import (
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"carrel/internal/store"
	"carrel/internal/store/storetest"
	"carrel/protocol"
)

func delta(runID string, seq int64) protocol.Event {
	return protocol.Event{
		RunID: runID, Seq: seq, Type: protocol.EventTextDelta,
		Data: json.RawMessage(`{"text":"a few words of text"}`),
	}
}

func flood(b *testing.B, s *store.Store, runID string, n int) {
	for seq := range int64(n) {
		if err := s.Append(b.Context(), delta(runID, seq+1)); err != nil {
			b.Error(err)
			return
		}
	}
	if err := s.Flush(b.Context(), runID); err != nil {
		b.Error(err)
	}
}

// measure starts the measurement; the function it returns reports the rate of n
// events and, since the machine may be shared, what each took of the CPU.
func measure(b *testing.B) (report func(n int)) {
	b.ReportAllocs()
	begin := cpuTime(b)
	b.ResetTimer()
	return func(n int) {
		b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "events/s")
		b.ReportMetric(float64((cpuTime(b)-begin).Nanoseconds())/float64(n), "cpu-ns/event")
	}
}

func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func BenchmarkAppend(b *testing.B) {
	s := open(b)
	create(b, s, "run_1")
	report := measure(b)
	flood(b, s, "run_1", b.N)
	report(b.N)
}

func BenchmarkAppend100Runs(b *testing.B) {
	s := open(b)
	const runs = 100
	for i := range runs {
		create(b, s, fmt.Sprintf("run_%d", i))
	}
	each := b.N/runs + 1
	report := measure(b)
	var wg sync.WaitGroup
	for i := range runs {
		wg.Go(func() { flood(b, s, fmt.Sprintf("run_%d", i), each) })
	}
	wg.Wait()
	report(each * runs)
}

// BenchmarkAppendFlush is the time from an event to its storage, for one run
// that waits each time.
func BenchmarkAppendFlush(b *testing.B) {
	s := open(b)
	create(b, s, "run_1")
	for seq := int64(1); b.Loop(); seq++ {
		if err := s.Append(b.Context(), delta("run_1", seq)); err != nil {
			b.Fatal(err)
		}
		if err := s.Flush(b.Context(), "run_1"); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkFollow is one run flooding while readers follow it.
func BenchmarkFollow(b *testing.B) {
	for _, readers := range []int{1, 100} {
		b.Run(fmt.Sprintf("%dreaders", readers), func(b *testing.B) {
			s := open(b)
			create(b, s, "run_1")
			var wg sync.WaitGroup
			for range readers {
				wg.Go(func() { checkSeqs(b, s, "run_1", 0, int64(b.N)) })
			}
			report := measure(b)
			flood(b, s, "run_1", b.N)
			wg.Wait()
			report(b.N)
		})
	}
}

func BenchmarkReplay(b *testing.B) {
	s := open(b)
	create(b, s, "run_1")
	const events = 100_000
	flood(b, s, "run_1", events)
	report := measure(b)
	n := 0
	for b.Loop() {
		checkSeqs(b, s, "run_1", 0, events)
		n += events
	}
	report(n)
}

func BenchmarkCreateRun(b *testing.B) {
	s := open(b)
	b.Run("one caller", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			create(b, s, fmt.Sprintf("run_%d_%d", b.N, i))
		}
	})
	b.Run("64 callers", func(b *testing.B) {
		var n atomic.Int64
		b.SetParallelism(32)
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if _, _, err := s.CreateRun(b.Context(), storetest.NewRun(fmt.Sprintf("run_p_%d_%d", b.N, n.Add(1)), "ann")); err != nil {
					b.Error(err)
				}
			}
		})
	})
}
