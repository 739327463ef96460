package bench

import (
	"fmt"
	"net/http"
	"sync"
	"time"

	"carrel/internal/ordeal"
	"carrel/protocol"
)

// floods is one stream as fast as it goes.
func (f *field) floods() {
	n := f.size.flood
	flood := func(url string) func() []float64 { return func() []float64 { return f.flood(url, n) } }
	rate := func(p *pool) func() []float64 {
		return func() []float64 { return []float64{float64(n) / p.ask(fmt.Sprint("flood ", n))} }
	}
	web := subject{name: webPool}
	if f.web != "" {
		web.take = func() []float64 { return f.floodWith(f.web, n, fmt.Sprint(n)) }
	}
	f.results.run(f.t, contest{
		name: "one flooding stream", unit: "events/s", more: true, beside: "bare Go relay", rounds: max(2, f.size.rounds/4),
		subjects: subjects(
			subject{"carrel, stored", flood(f.sender.URL)}, subject{"bare Go relay", flood(f.relay.URL)},
			f.pool("python pool", "", rate), f.pool("node pool", "", rate), web,
		),
		targets: []target{
			{subject: "carrel, stored", beside: "node pool", at: 0.5, times: 1},
			{subject: "carrel, stored", beside: "bare Go relay", at: 0.5, times: 0.5},
		},
	})
}

// flood is one such stream's events in a second.
func (f *field) flood(url string, n int) []float64 { return f.floodWith(url, n, order(n, 0)) }

func (f *field) floodWith(url string, n int, message string) []float64 {
	began := time.Now()
	events := 0
	stream(f.t, url, "flood", message, func([]byte) { events++ })
	if events < n {
		f.t.Errorf("%d events of %d", events, n)
	}
	return []float64{float64(events) / time.Since(began).Seconds()}
}

// paced is many streams at 20 events a second: how long after it was made an event is
// with its reader.
func (f *field) paced() {
	t := f.t
	const every = time.Second / 20
	turn := func(url string, streams int) func() []float64 {
		return func() []float64 {
			late := make([][]float64, streams)
			var wg sync.WaitGroup
			for i := range streams {
				wg.Go(func() {
					stream(t, url, fmt.Sprint("paced-", i), order(f.size.paced, every), func(data []byte) {
						if at, ok := made(data); ok {
							late[i] = append(late[i], milliseconds(time.Since(at)))
						}
					})
				})
			}
			wg.Wait()
			var all []float64
			for i, each := range late {
				if len(each) != f.size.paced {
					t.Errorf("stream %d has %d events of %d", i, len(each), f.size.paced)
				}
				all = append(all, each...)
			}
			return all
		}
	}
	for _, streams := range []int{max(1, f.size.streams/f.size.growth), f.size.streams} {
		turn(f.sender.URL, streams)() // their workers are started
		turn(f.relay.URL, streams)()
		c := contest{
			name: fmt.Sprintf("%d streams, 20 events/s: late by", streams), unit: "ms", beside: "bare Go relay", rounds: max(2, f.size.rounds/7),
			subjects: []subject{{"carrel, stored", turn(f.sender.URL, streams)}, {"bare Go relay", turn(f.relay.URL, streams)}},
		}
		if streams == f.size.streams {
			c.targets = []target{
				{subject: "carrel, stored", beside: "bare Go relay", at: 0.5, times: 1.5},
				{subject: "carrel, stored", beside: "bare Go relay", at: 0.99, times: 2},
			}
		}
		f.results.run(t, c)
	}
}

// replays is the events of a run that is over, read again from the store.
func (f *field) replays() {
	t, n := f.t, f.size.flood
	f.flood(f.sender.URL, n)
	runID := f.newestRun()
	f.results.run(t, contest{
		name: "replay of a stored run", unit: "events/s", more: true, rounds: max(2, f.size.rounds/4),
		subjects: []subject{{"carrel", func() []float64 {
			began := time.Now()
			events := f.readRun(runID, nil)
			if events < n {
				t.Errorf("%d events of %d", events, n)
			}
			return []float64{float64(events) / time.Since(began).Seconds()}
		}}},
	})
}

// newestRun is the last one of the user who flooded.
func (f *field) newestRun() string {
	f.t.Helper()
	var list protocol.RunPage
	get(f.t, f.sender.URL+"/v1/runs?limit=1&user_id=flood", &list)
	if len(list.Runs) != 1 {
		f.t.Fatalf("runs: %+v", list)
	}
	return list.Runs[0].RunID
}

// readRun reads a run's events from the first to the last, and counts them.
func (f *field) readRun(runID string, read func(data []byte)) (events int) {
	req, err := http.NewRequestWithContext(f.t.Context(), http.MethodGet, f.sender.URL+"/v1/runs/"+runID+"/events", http.NoBody)
	if err != nil {
		f.t.Error(err)
		return 0
	}
	_, err = follow(req, time.Now(), func(data []byte) {
		events++
		if read != nil {
			read(data)
		}
	})
	if err != nil {
		f.t.Errorf("events of %s: %v", runID, err)
	}
	return events
}

// readers is many callers who follow one run: how long after it was made an event is
// with the slowest of them, and what each costs.
func (f *field) readers() {
	t := f.t
	const events = 10
	every := f.size.watched
	for _, readers := range []int{max(1, f.size.readers/f.size.growth), f.size.readers} {
		pid := f.sender.Cmd.Process.Pid
		before := ordeal.Resident(pid)
		runID := f.begin("watched", order(events, every))
		late := make([][]float64, readers)
		var most int64
		var wg sync.WaitGroup
		for i := range readers {
			wg.Go(func() {
				n := f.readRun(runID, func(data []byte) {
					at, ok := made(data)
					if took := time.Since(at); ok && took < every { // others were made before it came
						late[i] = append(late[i], milliseconds(took))
					}
				})
				if n < events {
					t.Errorf("a reader has %d events of %d", n, events)
				}
			})
		}
		over := make(chan struct{})
		go func() { wg.Wait(); close(over) }()
		for tick := time.NewTicker(100 * time.Millisecond); ; {
			most = max(most, ordeal.Resident(pid))
			select {
			case <-tick.C:
				continue
			case <-over:
			}
			tick.Stop()
			break
		}
		var all []float64
		for _, each := range late {
			all = append(all, each...)
		}
		name := fmt.Sprintf("%d readers of one run", readers)
		f.results.run(t, contest{name: name + ": late by", unit: "ms", rounds: 1, subjects: []subject{{"carrel", func() []float64 { return all }}}})
		f.results.run(t, contest{name: name + ": the daemon's memory for each", unit: "KiB", rounds: 1, subjects: []subject{
			{"carrel", func() []float64 { return []float64{float64(most-before) / float64(readers) / 1024} }},
		}})
	}
}
