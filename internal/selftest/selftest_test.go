package selftest_test

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"carrel/internal/jail/attack"
	"carrel/internal/selftest"
)

func TestMain(m *testing.M) {
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			_, _ = os.Stderr.WriteString(err.Error() + "\n")
			code = 1
		}
	}
	if dir, err := built(); err == nil && dir.made != "" {
		_ = os.RemoveAll(dir.made)
	}
	os.Exit(code)
}

// cannot ends a test that this machine cannot run.
func cannot(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("REQUIRE_KERNEL") == "1" {
		t.Fatal(why)
	}
	t.Skip(why)
}

type programs struct{ worker, attacker, made string }

// built are the two programs, which are never this one: it may have cgo. They
// come from SANDBOX_WORKER_PATH and CARREL_TEST_ATTACKER, else from the go
// command, into a directory that every uid can walk to.
var built = sync.OnceValues(func() (programs, error) { //nolint:gochecknoglobals // built once a test binary
	p := programs{worker: os.Getenv("SANDBOX_WORKER_PATH"), attacker: os.Getenv("CARREL_TEST_ATTACKER")}
	if p.worker != "" && p.attacker != "" {
		return p, nil
	}
	dir, err := os.MkdirTemp("", "carrel-attack-")
	if err != nil {
		return p, err
	}
	p.made = dir
	for _, b := range []struct {
		path *string
		pkg  string
	}{{&p.worker, "carrel/cmd/carrel-worker"}, {&p.attacker, "carrel/internal/jail/attack/attacker"}} {
		if *b.path != "" {
			continue
		}
		*b.path = filepath.Join(dir, filepath.Base(b.pkg))
		cmd := exec.Command("go", "build", "-buildvcs=false", "-ldflags=-s -w", "-o", *b.path, b.pkg) //nolint:noctx // once, for all tests
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return p, errors.New("build " + b.pkg + ": " + string(out) + err.Error())
		}
	}
	return p, os.Chmod(dir, 0o755)
})

func options(t *testing.T) selftest.Options {
	t.Helper()
	p, err := built()
	if err != nil {
		cannot(t, err.Error())
	}
	return selftest.Options{Worker: p.worker, Attacker: p.attacker, Rows: attack.Rows(), Log: workersLog(t)}
}

// workersLog is shown where the test fails, and not before: lines of other processes
// between those of the test would tear them.
func workersLog(t *testing.T) *os.File {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	said := make(chan []byte)
	go func() {
		text, _ := io.ReadAll(io.LimitReader(r, 64<<10))
		_, _ = io.Copy(io.Discard, r)
		said <- text
	}()
	t.Cleanup(func() {
		_ = w.Close()
		// A worker that outlives its test holds the other end: the log is not for that.
		_ = r.SetReadDeadline(time.Now().Add(time.Second))
		if text := <-said; t.Failed() && len(text) > 0 {
			t.Logf("the workers said: %s", text)
		}
		_ = r.Close()
	})
	return w
}

// TestEveryRowHolds tries the whole table. A row that is not applicable here must be
// so for a reason that is the machine's or the user's, never for its control's.
func TestEveryRowHolds(t *testing.T) {
	t.Parallel()
	for _, way := range selftest.Ways() {
		t.Run(string(way), func(t *testing.T) {
			t.Parallel()
			o := options(t)
			o.Ways = []selftest.Way{way}
			verdicts, err := selftest.Run(t.Context(), o)
			if err != nil {
				cannot(t, err.Error())
			}
			applicable := 0
			for _, v := range verdicts {
				t.Run(v.ID, func(t *testing.T) {
					if v.Result == selftest.Broken || v.Unproven {
						t.Errorf("%s: %s: %s", v.Title, v.Result, v.Detail)
					} else {
						t.Logf("%s: %s", v.Result, v.Detail)
					}
				})
				if v.Control == "succeeded" {
					applicable++
				}
			}
			// A table that is not applicable as a whole proves nothing.
			want := len(verdicts) / 2
			if os.Geteuid() == 0 {
				want = len(verdicts) * 3 / 4
			}
			if applicable < want {
				t.Errorf("%d of %d controls succeeded, want %d", applicable, len(verdicts), want)
			}
		})
	}
}

func TestQuickRowsHoldAndTheirControlsSucceed(t *testing.T) {
	verdicts, err := selftest.Quick(t.Context(), options(t))
	if err != nil {
		cannot(t, err.Error())
	}
	succeeded := 0
	for _, v := range verdicts {
		if v.Result == selftest.Broken || v.Unproven {
			t.Errorf("%s: %s: %s", v.ID, v.Result, v.Detail)
		}
		if v.Control == "succeeded" {
			succeeded++
		}
	}
	if succeeded < len(verdicts)*3/4 {
		t.Errorf("%d of %d controls succeeded", succeeded, len(verdicts))
	}
}

// TestDaemonHoldsAgainstItsWorkersAndCallers tries the rows that need a daemon.
func TestDaemonHoldsAgainstItsWorkersAndCallers(t *testing.T) {
	t.Parallel() // it waits more than it works
	o := options(t)
	o.Daemon = filepath.Join(filepath.Dir(o.Worker), "carrel")
	verdicts, err := selftest.Exchanges(t.Context(), o)
	if err != nil {
		cannot(t, err.Error())
	}
	for _, v := range verdicts {
		t.Run(v.ID, func(t *testing.T) {
			if v.Result != selftest.Held {
				t.Errorf("%s: %s: %s", v.Title, v.Result, v.Detail)
			} else {
				t.Logf("held: %s", v.Detail)
			}
		})
	}
}
