package pool

import (
	"fmt"
	"testing"
)

// BenchmarkAcquireRelease lends an idle worker again and again, with that many
// idle workers alive. The two figures must not differ by more than noise.
func BenchmarkAcquireRelease(b *testing.B) {
	for _, workers := range []int{1, 1000} {
		b.Run(fmt.Sprintf("idle=%d", workers), func(b *testing.B) {
			r := newRig(b, Options{MaxWorkers: workers, QueueSize: 10})
			defer func() {
				r.stop()
				if err := <-r.ran; err != nil {
					b.Error(err)
				}
			}()
			users := make([]string, workers)
			for i := range users {
				users[i] = fmt.Sprint("user", i)
				l, err := r.pool.Acquire(b.Context(), users[i], AcquireOptions{})
				if err != nil {
					b.Fatal(err)
				}
				l.Release()
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				// A few users in turn: their memory stays in the cache, so that
				// the number of workers is all that differs.
				l, err := r.pool.Acquire(b.Context(), users[i%min(workers, 8)], AcquireOptions{})
				if err != nil {
					b.Fatal(err)
				}
				l.Release()
			}
		})
	}
}
