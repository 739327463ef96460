package claude

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"carrel/internal/agent"
	"carrel/internal/anthropictest"
	"carrel/internal/hook"
	"carrel/internal/tool"
	"carrel/protocol"
)

// What a worker gives the agent has its shapes.
var (
	_ Tools = (*tool.Set)(nil)
	_ Gate  = (*hook.Gate)(nil)
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is an agent over the real SDK and a real connection, with a scripted model
// and made-up tools.
type rig struct {
	*Agent

	t      *testing.T
	server *anthropictest.Server
	tools  *fakeTools
	// homeDir and workspaceDir are what the agent has as roots.
	homeDir, workspaceDir string

	mu    sync.Mutex
	waits []time.Duration // of retries, which in a test take no time
}

func newRig(t *testing.T, script ...anthropictest.Turn) *rig {
	t.Helper()
	return newRigOver(t, t.TempDir(), anthropictest.New(t, anthropictest.Options{Script: script}))
}

// newRigOver is a worker that finds a home there already.
func newRigOver(t *testing.T, homeDir string, server *anthropictest.Server) *rig {
	t.Helper()
	g := &rig{t: t, server: server, tools: newFakeTools(), homeDir: homeDir, workspaceDir: t.TempDir()}
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	g.Agent = New(Options{
		BaseURL: server.URL, Transport: transport,
		Home: openRoot(t, g.homeDir), Workspace: openRoot(t, g.workspaceDir),
		Tools: func(_ *agent.Run, dir string) Tools { return g.tools.begin(dir) },
	})
	g.wait = func(ctx context.Context, d time.Duration) error {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.waits = append(g.waits, d)
		return ctx.Err()
	}
	return g
}

func openRoot(t *testing.T, dir string) *os.Root {
	t.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}

// outcome is what a run gave: its result or error, and its events.
type outcome struct {
	result *protocol.Result
	err    error
	events []event
}

type event struct {
	Type protocol.EventType
	Data string // JSON
}

// run runs a message in the session "s"; config and more may change the run.
func (g *rig) run(ctx context.Context, message string, change ...func(*agent.Run)) outcome {
	var mu sync.Mutex
	var o outcome
	r := &agent.Run{ID: "run_1", SessionID: "s", Message: message}
	r.Emit = func(_ context.Context, t protocol.EventType, data any) error {
		raw, err := json.Marshal(data)
		if err != nil {
			return err
		}
		if len(raw) > protocol.MaxLineBytes-1024 {
			return fmt.Errorf("an event of %d bytes", len(raw))
		}
		mu.Lock()
		defer mu.Unlock()
		o.events = append(o.events, event{t, string(raw)})
		return nil
	}
	for _, c := range change {
		c(r)
	}
	o.result, o.err = g.Run(ctx, r)
	return o
}

// ok is run for one that must succeed.
func (g *rig) ok(message string, change ...func(*agent.Run)) outcome {
	g.t.Helper()
	o := g.run(g.t.Context(), message, change...)
	if o.err != nil {
		g.t.Fatalf("%q: %v", message, o.err)
	}
	if raw, err := json.Marshal(o.result); err != nil || len(raw) > protocol.MaxLineBytes-1024 {
		g.t.Fatalf("a result of %d bytes, %v", len(raw), err)
	}
	return o
}

// sorts are the types of the events in short, one a line where they change.
func (o outcome) sorts() string {
	var sorts []string
	for _, e := range o.events {
		if len(sorts) == 0 || sorts[len(sorts)-1] != string(e.Type) {
			sorts = append(sorts, string(e.Type))
		}
	}
	return strings.Join(sorts, " ")
}

// told puts the pieces of one kind of event together again.
func (o outcome) told(t protocol.EventType) string {
	var b strings.Builder
	for _, e := range o.events {
		if e.Type == t {
			var data struct{ Text, Delta string }
			if err := json.Unmarshal([]byte(e.Data), &data); err != nil {
				return err.Error()
			}
			b.WriteString(data.Text + data.Delta)
		}
	}
	return b.String()
}

// fakeTools are tools that do what a test says.
type fakeTools struct {
	does map[string]func(ctx context.Context, c tool.Call, output func(tool.Stream, string) error) tool.Result

	mu     sync.Mutex
	dir    string
	calls  []tool.Call
	closed int
}

func (f *fakeTools) begin(dir string) Tools {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.dir = dir
	return f
}

func newFakeTools() *fakeTools {
	f := &fakeTools{}
	f.does = map[string]func(context.Context, tool.Call, func(tool.Stream, string) error) tool.Result{
		"bash": func(_ context.Context, c tool.Call, output func(tool.Stream, string) error) tool.Result {
			if err := output(tool.Stdout, "output of "+string(c.Input)); err != nil {
				return failed(err.Error())
			}
			return tool.Result{Content: "did " + string(c.Input)}
		},
	}
	return f
}

func (f *fakeTools) Definitions() []tool.Definition {
	return []tool.Definition{
		{Name: "bash", Builtin: "bash_20250124"},
		{Name: "read", Description: "reads", InputSchema: json.RawMessage(`{"type":"object"}`)},
	}
}

func (f *fakeTools) Call(ctx context.Context, c tool.Call, output func(tool.Stream, string) error) tool.Result {
	f.mu.Lock()
	f.calls = append(f.calls, c)
	f.mu.Unlock()
	return f.does[c.Name](ctx, c, output)
}

func (f *fakeTools) Dir() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.dir
}

func (f *fakeTools) Close(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed++
	return nil
}

// expect is a turn that wants something of the last message.
func expect(turn anthropictest.Turn, check func(last anthropictest.Message) error) anthropictest.Turn {
	turn.Expect = func(q *anthropictest.Request) error { return check(q.Last()) }
	return turn
}

// results wants the tool results of the last message, in order.
func results(turn anthropictest.Turn, want ...string) anthropictest.Turn {
	return expect(turn, func(last anthropictest.Message) error {
		var got []string
		for _, c := range last.Results() {
			got = append(got, fmt.Sprintf("%s %t %s", c.ToolUseID, c.IsError, c.ResultText()))
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			return fmt.Errorf("results %q, want %q", got, want)
		}
		return nil
	})
}

func use(blocks ...anthropictest.Block) anthropictest.Turn {
	return anthropictest.Turn{Reply: anthropictest.Reply{Blocks: blocks}}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
