package local

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"carrel/internal/cgroup"
	"carrel/internal/engine"
	"carrel/internal/jail"
	"carrel/internal/jsonrpc"
	"carrel/internal/workspace"
	"carrel/protocol"
)

// BenchmarkColdStart measures a cold user's way to a first event, beside what else
// starts a process: a plain Go child without any jail, and bubblewrap with its own
// namespaces. The cases take turns in each round, so that their ratios come from
// one run; a single figure says little on a shared machine.
func BenchmarkColdStart(b *testing.B) {
	e := newEngine(b)
	plain := plainChild(b)
	cases := []struct {
		name string
		run  func() (time.Duration, []engine.StepTime)
	}{
		{"true", func() (time.Duration, []engine.StepTime) { return command(b, "/bin/true"), nil }},
		{"plain-go", func() (time.Duration, []engine.StepTime) { return command(b, plain), nil }},
		{"carrel-first-event", func() (time.Duration, []engine.StepTime) { return firstEvent(b, e, protocol.EventRunStarted) }},
		{"carrel-first-text", func() (time.Duration, []engine.StepTime) { return firstEvent(b, e, protocol.EventTextDelta) }},
	}
	if bwrap, err := exec.LookPath("bwrap"); err == nil {
		cases = append(cases, struct {
			name string
			run  func() (time.Duration, []engine.StepTime)
		}{"bwrap", func() (time.Duration, []engine.StepTime) {
			return command(b, bwrap, "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "--unshare-all", "--die-with-parent", "/bin/true"), nil
		}})
	} else {
		b.Log("bwrap is not installed: without it there is no ratio to it")
	}
	took := make(map[string][]time.Duration)
	steps := make(map[string][]time.Duration)
	var order []string
	for b.Loop() {
		for _, c := range cases {
			d, breakdown := c.run()
			took[c.name] = append(took[c.name], d)
			for _, s := range breakdown {
				if len(steps[s.Step]) == 0 {
					order = append(order, s.Step)
				}
				steps[s.Step] = append(steps[s.Step], s.Took)
			}
		}
	}
	for _, c := range cases {
		b.ReportMetric(milliseconds(median(took[c.name])), c.name+"-p50-ms")
	}
	for _, beside := range []string{"bwrap", "plain-go"} {
		if len(took[beside]) > 0 {
			b.ReportMetric(float64(median(took["carrel-first-event"]))/float64(median(took[beside])), "first-event/"+beside)
		}
	}
	var table strings.Builder
	for _, step := range order {
		fmt.Fprintf(&table, "\n%-14s %8.3f ms", step, milliseconds(median(steps[step])))
	}
	b.Logf("steps of a start, median of %d:%s", len(steps[jail.StepClone]), table.String())
}

// command runs a program to its end; for the plain child that is its first byte
// and little more.
func command(b *testing.B, path string, args ...string) time.Duration {
	b.Helper()
	start := time.Now()
	if err := exec.CommandContext(b.Context(), path, args...).Run(); err != nil {
		b.Fatalf("%s: %v", path, err)
	}
	return time.Since(start)
}

// firstEvent starts a worker for a user, has it execute a script, and measures up
// to the first event of the wanted type.
func firstEvent(b *testing.B, e *Engine, want protocol.EventType) (time.Duration, []engine.StepTime) {
	b.Helper()
	start := time.Now()
	p, err := e.Start(b.Context(), engine.Spec{UserID: "ana"})
	if err != nil {
		b.Fatal(err)
	}
	return eventOf(b, p, start, want), p.(*process).Steps() // the engine's own type
}

// eventOf binds p to a user, has it execute a script, and measures from start up
// to the first event of the wanted type. It ends p.
func eventOf(b *testing.B, p engine.Process, start time.Time, want protocol.EventType) time.Duration {
	b.Helper()
	ctx := b.Context()
	defer func() {
		p.Kill()
		<-p.Done()
	}()
	if err := p.Bind(ctx, engine.Binding{UserID: "ana"}); err != nil {
		b.Fatal(err)
	}
	seen := make(chan time.Duration, 1)
	conn := jsonrpc.NewConn(p.Stream(), onEvent(func(t protocol.EventType) {
		if t == want {
			select {
			case seen <- time.Since(start):
			default:
			}
		}
	}), jsonrpc.Options{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = conn.Run(ctx) // it ends with the worker
	}()
	var ready protocol.InitializeResult
	err := conn.Call(ctx, protocol.MethodInitialize, protocol.InitializeParams{ProtocolVersion: protocol.Version, UserID: "ana"}, &ready)
	if err != nil {
		b.Fatal(err)
	}
	var result protocol.Result
	if err := conn.Call(ctx, protocol.MethodExecute, protocol.ExecuteParams{RunID: "run_bench", Message: "echo hi"}, &result); err != nil {
		b.Fatal(err)
	}
	p.Kill()
	<-p.Done()
	<-ended
	return <-seen
}

type onEvent func(protocol.EventType)

func (f onEvent) Notify(_ context.Context, _ string, params json.RawMessage) error {
	var ev protocol.EventParams
	if err := json.Unmarshal(params, &ev); err != nil {
		return err
	}
	f(ev.Type)
	return nil
}

func (onEvent) Request(context.Context, string, json.RawMessage) (any, error) {
	return nil, jsonrpc.ErrMethodNotFound
}

// newEngine makes an engine on a throw-away base directory.
func newEngine(tb testing.TB) *Engine {
	tb.Helper()
	base := filepath.Join(tb.TempDir(), "data")
	dirs, err := workspace.Open(tb.Context(), workspace.Options{
		BaseDir: base, Root: os.Geteuid() == 0, UIDFirst: 200000, UIDCount: 100, SlotUIDs: 20,
	})
	if err != nil {
		tb.Fatal(err)
	}
	var groups *cgroup.Cgroups
	if cgroup.Detect().State != cgroup.None {
		if groups, err = cgroup.Open(tb.Context(), cgroup.Name(base)); err != nil {
			tb.Fatal(err)
		}
	}
	e := New(Options{
		Worker:  worker(tb),
		Dirs:    dirs,
		Limits:  jail.DefaultLimits(),
		Cgroups: groups,
		Sum:     cgroup.Limits{MemoryBytes: 1 << 30, CPUs: 1, PIDs: 256},
		Env:     func(userID string) []string { return jail.BaseEnv(userID, nil) },
		Logger:  slog.New(slog.DiscardHandler),
	})
	tb.Cleanup(func() {
		e.Close()
		if groups != nil {
			if err := groups.Close(context.WithoutCancel(tb.Context())); err != nil {
				tb.Error(err)
			}
		}
		if err := dirs.Close(); err != nil {
			tb.Error(err)
		}
	})
	return e
}

// worker is the program of the jailed half: the gate's, or one built now.
func worker(tb testing.TB) string {
	tb.Helper()
	if path := os.Getenv("SANDBOX_WORKER_PATH"); path != "" {
		return path
	}
	return build(tb, "carrel-worker", "carrel/cmd/carrel-worker")
}

func build(tb testing.TB, name, what string) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), name)
	cmd := exec.CommandContext(tb.Context(), "go", "build", "-buildvcs=false", "-o", path, what)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		tb.Fatalf("build %s: %v\n%s", what, err, out)
	}
	return path
}

func plainChild(b *testing.B) string {
	b.Helper()
	source := filepath.Join(b.TempDir(), "main.go")
	text := "package main\n\nimport \"os\"\n\nfunc main() { os.Stdout.WriteString(\"hi\\n\") }\n"
	if err := os.WriteFile(source, []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
	return build(b, "plain", source)
}

func median(all []time.Duration) time.Duration {
	if len(all) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(all))
	return sorted[len(sorted)/2]
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
