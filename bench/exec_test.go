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
	direct := newDirect(f.t)
	for _, args := range [][]string{{"/bin/true"}, {"sh", "-c", "echo hi"}} {
		for _, clients := range f.size.clients {
			name := fmt.Sprintf("exec %s, %d clients", strings.Join(args, " "), clients)
			latency := contest{name: name, unit: "ms", beside: "no sandbox", rounds: max(2, f.size.rounds/4)}
			rate := contest{name: name, unit: "/s", more: true, beside: "no sandbox", rounds: latency.rounds}
			for _, to := range []struct{ name, url string }{{"carrel", f.cold.URL}, {"no sandbox", direct.URL}} {
				latency.subjects = append(latency.subjects, subject{to.name, func() []float64 {
					all, _ := f.crowd(to.url, clients, args)
					return all
				}})
				rate.subjects = append(rate.subjects, subject{to.name, func() []float64 {
					all, took := f.crowd(to.url, clients, args)
					return []float64{float64(len(all)) / took.Seconds()}
				}})
			}
			// What go-judge took without seccomp and Landlock, measured on such a machine;
			// its module is not to be had from the proxy.
			if args[0] == "/bin/true" && clients == 1 {
				latency.targets = []target{{subject: "carrel", beside: "go-judge's 6.7 ms", at: 0.5, times: 1, fixed: 6.7}}
			}
			if args[0] == "/bin/true" && clients == 8 {
				rate.targets = []target{{subject: "carrel", beside: "go-judge's 173/s", at: 0.5, times: 1, fixed: 173}}
			}
			f.results.run(f.t, latency)
			f.results.run(f.t, rate)
		}
	}
}

// crowd has clients run a command again and again, and gives the milliseconds of each
// and how long all took.
func (f *field) crowd(url string, clients int, args []string) (all []float64, took time.Duration) {
	times := make([][]float64, clients)
	began := time.Now()
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() {
			for range f.size.execs {
				one := time.Now()
				run(f.t, url, fmt.Sprint("exec-", i), args...)
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
