package bench

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"carrel/protocol"
)

// execs is commands by several clients at once, each of its own user's.
func (f *field) execs() {
	most := f.size.clients[len(f.size.clients)-1]
	for i := range most {
		run(f.t, f.cold.URL, fmt.Sprint("exec-", i), "/bin/true")
	}
	direct, judge := newDirect(f.t), newJudge(f.t, f.results)
	for _, args := range [][]string{{"/bin/true"}, {"sh", "-c", "echo hi"}} {
		for _, clients := range f.size.clients {
			name := fmt.Sprintf("exec %s, %d clients", strings.Join(args, " "), clients)
			latency := contest{name: name, unit: "ms", beside: "no sandbox", rounds: max(2, f.size.rounds/4)}
			rate := contest{name: name, unit: "/s", more: true, beside: "no sandbox", rounds: latency.rounds}
			for _, to := range []struct {
				name string
				do   func(user string)
			}{
				{"carrel", func(user string) { run(f.t, f.cold.URL, user, args...) }},
				{"go-judge", func(string) { judge.run(args) }},
				{"no sandbox", func(user string) { run(f.t, direct.URL, user, args...) }},
			} {
				if to.name == "go-judge" && judge == nil {
					continue
				}
				latency.subjects = append(latency.subjects, subject{to.name, func() []float64 {
					all, _ := f.crowd(clients, to.do)
					return all
				}})
				rate.subjects = append(rate.subjects, subject{to.name, func() []float64 {
					all, took := f.crowd(clients, to.do)
					return []float64{float64(len(all)) / took.Seconds()}
				}})
			}
			if args[0] == "/bin/true" && clients == 1 {
				latency.targets = []target{judge.target(false)}
			}
			if args[0] == "/bin/true" && clients == 8 {
				rate.targets = []target{judge.target(true)}
			}
			f.results.run(f.t, latency)
			f.results.run(f.t, rate)
		}
	}
}

// crowd has clients do something again and again, and gives the milliseconds of each
// and how long all took.
func (f *field) crowd(clients int, do func(user string)) (all []float64, took time.Duration) {
	times := make([][]float64, clients)
	began := time.Now()
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() {
			for range f.size.execs {
				one := time.Now()
				do(fmt.Sprint("exec-", i))
				times[i] = append(times[i], milliseconds(time.Since(one)))
			}
		})
	}
	wg.Wait()
	took = time.Since(began)
	for _, each := range times {
		all = append(all, each...)
	}
	return all, took
}

// newDirect is the floor of exec: a bare Go handler that starts the command itself.
func newDirect(t *testing.T) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		var body protocol.ExecRequest
		if err := json.NewDecoder(req.Body).Decode(&body); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		out, err := exec.CommandContext(req.Context(), body.Command.Args[0], body.Command.Args[1:]...).Output()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		if err := json.NewEncoder(w).Encode(protocol.ExecResult{Stdout: string(out)}); err != nil {
			t.Error(err)
		}
	}))
	t.Cleanup(s.Close)
	return s
}
