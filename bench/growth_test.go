package bench

import (
	"fmt"
	"sync"
)

// grown is figures again where there is ten times as much: stored events, and users
// who have been there.
func (f *field) grown() {
	t, n := f.t, f.size.flood/5
	rate := func() []float64 {
		var all []float64
		for range max(2, f.size.rounds/4) {
			all = append(all, f.flood(f.sender.URL, n)...)
		}
		return all
	}
	bound := func() []float64 {
		var all []float64
		for range f.size.rounds {
			all = append(all, milliseconds(stream(t, f.cold.URL, "bound", "true", nil)))
		}
		return all
	}
	few, first := rate(), bound()
	for range f.size.growth * 5 {
		f.flood(f.sender.URL, n)
	}
	users := make(chan int)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range users {
				run(t, f.cold.URL, fmt.Sprint("was-there-", i), "/bin/true")
				f.end(f.cold, fmt.Sprint("was-there-", i))
			}
		})
	}
	for i := range f.size.growth * f.size.rounds {
		users <- i
	}
	close(users)
	wg.Wait()
	many, then := rate(), bound()
	kept := func(all []float64) func() []float64 { return func() []float64 { return all } }
	f.results.run(t, contest{
		name: "growth: a flooding stream", unit: "events/s", more: true, beside: "first", rounds: 1,
		subjects: []subject{{"first", kept(few)}, {fmt.Sprintf("after %d events more", f.size.growth*5*n), kept(many)}},
	})
	f.results.run(t, contest{
		name: "growth: first event, bound", unit: "ms", beside: "first", rounds: 1,
		subjects: []subject{{"first", kept(first)}, {fmt.Sprintf("after %d users more", f.size.growth*f.size.rounds), kept(then)}},
	})
}
