package ordeal

import (
	"context"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"carrel/client"
)

// stormUsers is how many users the runs of the crash test are of.
const stormUsers = 50

// CARREL_TEST_RUNS is how many runs there are, CARREL_TEST_SEED what makes runs and
// kills the same ones again. (The machine's own timing it cannot bring back.)
func TestKillsAtRandomLoseNothingAndLeaveNothingBehind(t *testing.T) {
	seed := uint64(number(t, "CARREL_TEST_SEED", int(rand.Uint32())))
	runs := number(t, "CARREL_TEST_RUNS", 60)
	t.Logf("seed %d, %d runs of %d users", seed, runs, stormUsers)
	Adopt(t)
	s := newStorm(t, seed)

	// What a daemon leaves that nobody kills is what all of them may leave.
	s.serve()
	s.witness(t.Context(), -1, echoes)
	s.daemon.Stop()
	before := Layout(t, s.base)

	s.serve()
	s.rage(runs)
	s.ended()
	s.recordHolds()
	s.daemon.Stop()
	s.databaseHolds()
	s.nothingIsLeft(before)
	s.print()
}

// number reads a variable of the test's own.
func number(t *testing.T, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// storm is one crash test: clients that start and follow runs, and one who kills.
type storm struct {
	t         *testing.T
	seed      uint64
	base, tmp string
	daemon    *Daemon                // replaced by the goroutine that kills
	address   atomic.Pointer[string] // of the daemon that serves now
	client    *client.Client         // finds the daemon of the moment

	progress chan struct{} // something for each run that begins or ends

	mu      sync.Mutex
	seen    map[string]*sighting // by run id: the acknowledged runs
	tallies map[string]int       // what happened how often
}

func newStorm(t *testing.T, seed uint64) *storm {
	s := &storm{
		t: t, seed: seed, base: t.TempDir(), tmp: t.TempDir(),
		progress: make(chan struct{}, 16), seen: make(map[string]*sighting), tallies: make(map[string]int),
	}
	transport := &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, *s.address.Load())
		},
		MaxIdleConnsPerHost: 16,
	}
	var err error
	if s.client, err = client.New("http://127.0.0.1", client.Options{HTTPClient: &http.Client{Transport: transport}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.client.Close)
	return s
}

// serve starts the next daemon on what the last one left.
func (s *storm) serve() {
	s.daemon = Serve(s.t, s.base, "TMPDIR="+s.tmp, "SANDBOX_MAX_WORKERS=8", "SANDBOX_QUEUE_SIZE=1000",
		"SANDBOX_QUEUE_TIMEOUT=120s", "SANDBOX_IDLE_TIMEOUT=2s", "SANDBOX_MAX_REQUESTS=5", "SANDBOX_WARM_WORKERS=1", "CARREL_LOG_LEVEL=warn")
	address := strings.TrimPrefix(s.daemon.URL, "http://")
	s.address.Store(&address)
}

func (s *storm) tally(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tallies[what]++
}

// step tells whoever kills that there is something new to hit.
func (s *storm) step() {
	select {
	case s.progress <- struct{}{}:
	default: // he has more to hit than he can
	}
}

// rage has the runs made by some clients at a time, and kills until they have ended.
func (s *storm) rage(runs int) {
	const clients = 8
	ctx, cancel := context.WithCancel(s.t.Context())
	var wg sync.WaitGroup
	defer func() { // also where the test ends early
		cancel()
		wg.Wait()
	}()
	todo := make(chan int)
	for range clients {
		wg.Go(func() {
			for i := range todo {
				s.do(ctx, i)
			}
		})
	}
	over := make(chan struct{})
	wg.Go(func() {
		defer close(todo)
		for i := range runs {
			select {
			case todo <- i:
			case <-ctx.Done():
				return
			}
		}
	})
	go func() {
		wg.Wait()
		close(over)
	}()
	s.kill(over)
}

// The victims. What is below a tool host has no name of ours; it dies with it.
const (
	aWorker   = "worker"
	aToolHost = "tool host"
	aSpawner  = "spawner"
	aDaemon   = "daemon"
)

// kill sends SIGKILL at random moments until over: each time a few runs more have
// begun or ended, however fast the machine is, and a while after. Each victim gets
// its turn before chance chooses.
func (s *storm) kill(over <-chan struct{}) {
	random := rand.New(rand.NewPCG(s.seed, 1<<63))
	turns := []string{aWorker, aToolHost, aDaemon, aSpawner}
	for {
		for range 1 + random.IntN(7) {
			select {
			case <-over:
				return
			case <-s.progress:
			}
		}
		moment := time.NewTimer(time.Duration(random.IntN(200)) * time.Millisecond)
		select {
		case <-over:
			moment.Stop()
			return
		case <-moment.C:
		}
		victim := aWorker // the likeliest: what it ends is one user's
		switch {
		case len(turns) > 0:
			victim = turns[0]
		case random.IntN(12) == 0:
			victim = aDaemon
		case random.IntN(6) == 0:
			victim = aSpawner
		case random.IntN(2) == 0:
			victim = aToolHost
		}
		if s.killOne(victim, random) {
			s.tally("killed: " + victim)
			turns = slices.DeleteFunc(turns, func(v string) bool { return v == victim })
		}
		Reap(s.daemon.Cmd.Process.Pid)
	}
}

// killOne reports whether there was such a victim.
func (s *storm) killOne(victim string, random *rand.Rand) bool {
	if victim == aDaemon {
		s.daemon.Kill()
		s.serve()
		return true
	}
	var there []int
	for _, spawner := range Children(s.daemon.Cmd.Process.Pid) {
		workers := Children(spawner)
		switch victim {
		case aSpawner:
			there = append(there, spawner)
		case aWorker:
			there = append(there, workers...)
		case aToolHost:
			for _, w := range workers {
				there = append(there, slices.DeleteFunc(Children(w), func(pid int) bool { return !strings.HasSuffix(commandLine(pid), "toolhost") })...)
			}
		}
	}
	if len(there) == 0 {
		return false
	}
	return syscall.Kill(there[random.IntN(len(there))], syscall.SIGKILL) == nil
}

// nothingIsLeft looks for what is too many once the last daemon has ended.
func (s *storm) nothingIsLeft(before []string) {
	Eventually(s.t, "no process is left", func() bool { return len(Reap()) == 0 })
	for _, trace := range Traces(s.t, s.base, s.tmp) {
		s.t.Errorf("left behind: %s", trace)
	}
	for _, kind := range Layout(s.t, s.base) {
		if !slices.Contains(before, kind) {
			s.t.Errorf("left behind in the base directory: %s", kind)
		}
	}
}

// print tells what happened, and fails where a storm of one kind was none.
func (s *storm) print() {
	for _, what := range slices.Sorted(maps.Keys(s.tallies)) {
		s.t.Logf("%6d  %s", s.tallies[what], what)
	}
	for _, victim := range []string{aWorker, aToolHost, aSpawner, aDaemon} {
		if s.tallies["killed: "+victim] == 0 {
			s.t.Errorf("no %s was killed", victim)
		}
	}
	if s.tallies["reader: came back"] == 0 {
		s.t.Error("no reader came back for the rest of its events")
	}
}
