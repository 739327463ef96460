package bench

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"carrel/internal/ordeal"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// size is how much is measured: in the gate little, by make bench enough.
type size struct {
	rounds, each int           // rounds of a case, samples of a subject's turn
	flood        int           // events of a stream
	streams      int           // at once, at 20 events a second
	paced        int           // events of each
	sandboxes    int           // idle at once
	readers      int           // of one run
	watched      time.Duration // between its events
	clients      []int
	execs        int // of each client a turn
	growth       int // how many times as much
	resultsDir   string
}

func sizes() size {
	if dir := os.Getenv("CARREL_BENCH_RESULTS"); dir != "" {
		return size{
			rounds: 20, each: 5, flood: 50_000, streams: 100, paced: 100, sandboxes: 1000, readers: 10_000, watched: 2 * time.Second,
			clients: []int{1, 2, 8, 32}, execs: 40, growth: 10, resultsDir: dir,
		}
	}
	return size{
		rounds: 2, each: 1, flood: 500, streams: 3, paced: 3, sandboxes: 4, readers: 20, watched: time.Second / 10,
		clients: []int{1, 3}, execs: 2, growth: 2,
	}
}

// webPool is the home-made pool as its callers meet it; the others are without HTTP.
const webPool = "FastAPI pool"

// field is everything that takes part.
type field struct {
	t       *testing.T
	size    size
	results *Results
	standin string

	cold, warm, sender *ordeal.Daemon // without and with warm workers; with standin as the worker
	relay              *relay
	pools              map[string]*pool
	web                string // the address of the pool that speaks HTTP; it may not be here
	others             map[string]command
	users              int
}

// TestBeside measures all cases: CARREL_BENCH_RESULTS names the directory for the
// results of a run that is long enough to mean something.
func TestBeside(t *testing.T) {
	began := time.Now()
	f := newField(t)
	for _, c := range []struct {
		name    string
		measure func()
	}{
		{"starts", f.starts},
		{"first events", f.firstEvents},
		{"execs", f.execs},
		{"floods", f.floods},
		{"paced", f.paced},
		{"replays", f.replays},
		{"growth", f.grown},
		{"readers", f.readers},
		{"idle", f.idle},
		{"texts", f.texts},
	} {
		t.Run(c.name, func(t *testing.T) {
			f.t = t
			c.measure()
		})
	}
	f.t = t
	f.results.Duration = time.Since(began).Round(time.Second).String()
	if dir := f.size.resultsDir; dir != "" {
		fmt.Println(f.results)
		fmt.Println("kept in", f.results.keep(t, dir))
	} else {
		t.Log("\n" + f.results.String())
	}
}

// newField starts all that takes part.
func newField(t *testing.T) *field {
	t.Helper()
	f := newDaemons(t)
	f.others = starters(t, f.results, filepath.Dir(f.standin))
	for name, program := range map[string][2]string{"python pool": {"python3", "pool.py"}, "node pool": {"node", "pool.mjs"}} {
		if p := newPool(t, f.results, program[0], program[1]); p != nil {
			f.pools[name] = p
		}
	}
	f.web = newWebPool(t, f.results)
	f.relay = newRelay(t, f.standin)
	f.warm = f.serve("SANDBOX_WARM_WORKERS=2")
	return f
}

// newDaemons starts those that have no warm workers.
func newDaemons(t *testing.T) *field {
	t.Helper()
	f := &field{t: t, size: sizes(), results: newResults(t), pools: make(map[string]*pool)}
	dir := t.TempDir()
	for _, d := range []string{filepath.Dir(dir), dir} {
		if err := os.Chmod(d, 0o711); err != nil { // every sandbox's uid walks to the worker in it
			t.Fatal(err)
		}
	}
	f.standin = filepath.Join(dir, "standin")
	t.Setenv("CGO_ENABLED", "0")
	if !build(t, "go", "build", "-buildvcs=false", "-o", f.standin, "carrel/bench/standin") {
		t.FailNow()
	}
	f.cold = f.serve("SANDBOX_WARM_WORKERS=0", "SANDBOX_MAX_WORKERS=64")
	f.sender = f.serve("SANDBOX_WORKER_PATH="+f.standin, fmt.Sprint("SANDBOX_MAX_WORKERS=", f.size.streams*f.size.growth+2), "SANDBOX_WARM_WORKERS=0")
	return f
}

func (f *field) serve(env ...string) *ordeal.Daemon {
	f.t.Helper()
	return ordeal.Serve(f.t, f.t.TempDir(), append([]string{"CARREL_LOG_LEVEL=warn", "SANDBOX_IDLE_TIMEOUT=1h", "SANDBOX_QUEUE_SIZE=1000"}, env...)...)
}

// subjects leaves out those that are not here.
func subjects(all ...subject) []subject {
	var here []subject
	for _, s := range all {
		if s.take != nil {
			here = append(here, s)
		}
	}
	return here
}

// pool is a pool's turn; none, if there is no such pool here.
func (f *field) pool(name, command string, as func(p *pool) func() []float64) subject {
	p := f.pools[name]
	if p == nil {
		return subject{name: name + command}
	}
	return subject{name + command, as(p)}
}

func (f *field) poolTime(name, command string) subject {
	s := f.pool(name, ", "+command, func(p *pool) func() []float64 { return p.milliseconds(command, f.size.each) })
	return s
}

// starts is what the start of a process costs, in all kinds of sandboxes, to its end.
func (f *field) starts() {
	var all []subject
	for _, name := range []string{"bare: static C", "bare: /bin/true", "bubblewrap", "crun", "runc", "sandbox-runtime"} {
		c := f.others[name]
		if c == nil {
			continue
		}
		n := f.size.each
		if name == "sandbox-runtime" {
			n = 1 // it takes seconds
		}
		all = append(all, subject{name, c.time(f.t, n, nil)})
		if name == "bare: static C" {
			all = append(all, subject{"in all namespaces: static C", c.time(f.t, n, namespaces())})
		}
	}
	all = append(all, subject{"carrel: exec /bin/true, new user", func() []float64 {
		return f.timed(func() { user := f.newUser(); run(f.t, f.cold.URL, user, "/bin/true") }, func(i int) { f.retire(f.cold, i) })
	}})
	f.results.run(f.t, contest{name: "start /bin/true", unit: "ms", beside: "bubblewrap", rounds: f.size.rounds, subjects: all})
}

// newUser names a user that nobody has been.
func (f *field) newUser() string {
	f.users++
	return userName(f.users)
}

func userName(i int) string { return fmt.Sprint("user-", i) }

// timed does something a few times and gives what each took; after, which is not
// measured, is told the number of the newest user.
func (f *field) timed(do func(), after func(user int)) []float64 {
	var all []float64
	for range f.size.each {
		began := time.Now()
		do()
		all = append(all, milliseconds(time.Since(began)))
		after(f.users)
	}
	return all
}

// firstEvents is the time from a message to the first event of it.
func (f *field) firstEvents() {
	t, each := f.t, f.size.each
	first := func(d *ordeal.Daemon, user func() string, before, after func()) func() []float64 {
		return func() []float64 {
			var all []float64
			for range each {
				before()
				all = append(all, milliseconds(stream(t, d.URL, user(), "true", nil)))
				after()
			}
			return all
		}
	}
	web := func(name string, user func() string, after func()) subject {
		s := subject{name: webPool + ", " + name}
		if f.web != "" {
			s.take = func() []float64 {
				var all []float64
				for range each {
					all = append(all, milliseconds(stream(t, f.web, user(), "1", nil)))
					after()
				}
				return all
			}
		}
		return s
	}
	nothing := func() {}
	bound := func() string { return "bound" }
	stream(t, f.cold.URL, bound(), "true", nil)
	stream(t, f.relay.URL, "", order(1, 0), nil)
	if f.web != "" {
		stream(t, f.web, bound(), "1", nil)
	}
	f.results.run(t, contest{
		name: "first event", unit: "ms", beside: "python pool, cold", rounds: f.size.rounds,
		subjects: subjects(
			f.poolTime("python pool", "cold"), f.poolTime("node pool", "cold"),
			web("cold", f.newUser, func() { call(t, http.MethodDelete, f.web+"/v1/users/"+userName(f.users), nil, nil) }),
			subject{"carrel, cold", first(f.cold, f.newUser, nothing, func() { f.retire(f.cold, f.users) })},
			subject{"carrel, warm pool", first(f.warm, f.newUser, func() { f.ready(f.warm, 2) }, func() { f.retire(f.warm, f.users) })},
			f.poolTime("python pool", "bound"), f.poolTime("node pool", "bound"), web("bound", bound, nothing),
			subject{"carrel, bound", first(f.cold, bound, nothing, nothing)},
			subject{"bare Go relay, bound", func() []float64 {
				var all []float64
				for range each {
					all = append(all, milliseconds(stream(t, f.relay.URL, "", order(1, 0), nil)))
				}
				return all
			}},
		),
		targets: []target{
			{subject: "carrel, bound", beside: webPool + ", bound", at: 0.5, times: 1},
			{subject: "carrel, bound", beside: "python pool, bound", at: 0.5, times: 1},
			{subject: "carrel, bound", beside: "bare Go relay, bound", at: 0.5, times: 1.5},
			{subject: "carrel, warm pool", beside: "python pool, cold", at: 0.5, times: 0.2},
			{subject: "carrel, cold", beside: "python pool, cold", at: 0.5, times: 0.6},
		},
	})
}
