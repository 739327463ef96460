package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"carrel/internal/anthropictest"
	"carrel/internal/ordeal"
	"carrel/protocol"
)

// BenchmarkFirstText measures the way from a message to the first text of its
// answer: through HTTP, pool, jail, SDK and broker, and beside it the same request by
// the SDK in a bare process. The cases take turns in each round, so that differences
// come from one run; a single figure says little on a shared machine.
//
//	bare        a process is started, and asks
//	bare-again  it asks once more
//	cold        a user who has no worker, of a daemon with warm ones (the default)
//	cold-start  the same, of a daemon without: a worker is started
//	warm        a user who has an idle worker
//
// The differences to bare are those of medians. Package bench has it beside the Agent
// SDK's query().
func BenchmarkFirstText(b *testing.B) {
	model := answering(b, "first ", "and ", "last")
	pooled := serveModel(b, model, "SANDBOX_WARM_WORKERS=2")
	unpooled := serveModel(b, model, "SANDBOX_WARM_WORKERS=0")
	firstText(b, pooled, "regular")
	program := newBare(b, model)
	users := 0
	newUser := func(d *ordeal.Daemon) time.Duration {
		users++
		user := fmt.Sprint("user-", users)
		took := firstText(b, d, user)
		retire(b, d, user)
		return took
	}
	var bare *bareProcess
	cases := []struct {
		name string
		run  func() time.Duration
	}{
		{"bare", func() time.Duration {
			start := time.Now()
			bare = program.start(b)
			bare.ask(b)
			return time.Since(start)
		}},
		{"bare-again", func() time.Duration { defer bare.end(b); start := time.Now(); bare.ask(b); return time.Since(start) }},
		{"cold", func() time.Duration { return newUser(pooled) }},
		{"cold-start", func() time.Duration { return newUser(unpooled) }},
		{"warm", func() time.Duration { return firstText(b, pooled, "regular") }},
	}
	took := make(map[string][]time.Duration)
	for b.Loop() {
		for _, c := range cases {
			ready(b, pooled, 2)
			took[c.name] = append(took[c.name], c.run())
		}
	}
	ms := func(name string) float64 {
		slices.Sort(took[name])
		return float64(took[name][len(took[name])/2]) / float64(time.Millisecond)
	}
	for _, c := range cases {
		b.ReportMetric(ms(c.name), c.name+"-ms")
		if c.name != "bare" {
			b.ReportMetric(ms(c.name)-ms("bare"), c.name+"-over-bare-ms")
		}
	}
	b.ReportMetric(ms("warm")-ms("bare-again"), "warm-over-bare-again-ms")
}

// BenchmarkStreamedDeltas measures how many deltas a second come through the whole
// chain, from one run, beside the SDK in a bare process.
func BenchmarkStreamedDeltas(b *testing.B) {
	const deltas = 10_000
	model := answering(b, slices.Repeat([]string{"word "}, deltas)...)
	d := serveModel(b, model)
	firstText(b, d, "regular")
	bare := newBare(b, model).start(b)
	defer bare.end(b)
	var chain, alone time.Duration
	for b.Loop() {
		start := time.Now()
		if n := count(b, d, "regular"); n != deltas {
			b.Fatalf("%d deltas came", n)
		}
		chain += time.Since(start)
		start = time.Now()
		bare.ask(b)
		bare.finish(b)
		alone += time.Since(start)
	}
	b.ReportMetric(float64(deltas*b.N)/chain.Seconds(), "chain-deltas/s")
	b.ReportMetric(float64(deltas*b.N)/alone.Seconds(), "bare-deltas/s")
	b.ReportMetric(chain.Seconds()/alone.Seconds(), "chain/bare")
}

// answering is a model that says the same to everybody.
func answering(b *testing.B, pieces ...string) *anthropictest.Server {
	b.Helper()
	return anthropictest.New(b, anthropictest.Options{Key: "", Otherwise: func(*anthropictest.Request) anthropictest.Reply {
		return anthropictest.Say(pieces...).Reply
	}})
}

func serveModel(b *testing.B, model *anthropictest.Server, env ...string) *ordeal.Daemon {
	b.Helper()
	return ordeal.Serve(b, b.TempDir(), append([]string{
		"ANTHROPIC_API_KEY=" + canary, "ANTHROPIC_BASE_URL=" + model.URL, "CARREL_LOG_LEVEL=warn",
	}, env...)...)
}

// ready waits until a daemon has its warm workers, so that nothing else is started
// while a case is measured.
func ready(b *testing.B, d *ordeal.Daemon, warm int) {
	b.Helper()
	ordeal.Eventually(b, "the warm workers are ready", func() bool {
		all, err := d.Client.Sandboxes(b.Context())
		return err == nil && all.Warm == warm
	})
}

// follow runs a message in a new session and calls see for each type of event.
func follow(b *testing.B, d *ordeal.Daemon, user string, see func(kind string)) {
	b.Helper()
	body, err := json.Marshal(protocol.ExecuteRequest{UserID: user, Message: "hello"})
	if err != nil {
		b.Fatal(err)
	}
	req, err := http.NewRequestWithContext(b.Context(), http.MethodPost, d.URL+"/v1/execute", strings.NewReader(string(body)))
	if err != nil {
		b.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "text/event-stream")
	resp, err := http.DefaultClient.Do(req) //nolint:forbidigo // a test's own requests
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close()
	last := ""
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if kind, ok := strings.CutPrefix(lines.Text(), "event: "); ok {
			last = kind
			see(kind)
		}
	}
	if last != string(protocol.EventRunFinished) {
		b.Fatalf("the run of %s ended with %q, %v", user, last, lines.Err())
	}
}

func firstText(b *testing.B, d *ordeal.Daemon, user string) (took time.Duration) {
	b.Helper()
	start := time.Now()
	follow(b, d, user, func(kind string) {
		if took == 0 && kind == string(protocol.EventTextDelta) {
			took = time.Since(start)
		}
	})
	return took
}

func count(b *testing.B, d *ordeal.Daemon, user string) (deltas int) {
	b.Helper()
	follow(b, d, user, func(kind string) {
		if kind == string(protocol.EventTextDelta) {
			deltas++
		}
	})
	return deltas
}

// retire ends a user's worker, so that the pool never has to make room.
func retire(b *testing.B, d *ordeal.Daemon, user string) {
	b.Helper()
	req, err := http.NewRequestWithContext(b.Context(), http.MethodDelete, d.URL+"/v1/users/"+user+"/sandbox", http.NoBody)
	if err != nil {
		b.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req) //nolint:forbidigo // a test's own requests
	if err != nil || resp.StatusCode/100 != 2 {
		b.Fatalf("retire %s: %v, %v", user, resp, err)
	}
	_ = resp.Body.Close()
}

// bareProgram is the SDK in a process of its own, with a request of the chain's.
type bareProgram struct{ path, url, body string }

func newBare(b *testing.B, model *anthropictest.Server) bareProgram {
	b.Helper()
	dir := b.TempDir()
	p := bareProgram{path: filepath.Join(dir, "bare"), url: model.URL, body: filepath.Join(dir, "request.json")}
	build := exec.CommandContext(b.Context(), "go", "build", "-buildvcs=false", "-trimpath", "-ldflags=-s -w", "-o", p.path, "carrel/internal/agent/claude/bare")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	if err := os.WriteFile(p.body, model.Requests()[0].Body, 0o600); err != nil {
		b.Fatal(err)
	}
	return p
}

// bareProcess is one that runs.
type bareProcess struct {
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines *bufio.Scanner
}

func (p bareProgram) start(b *testing.B) *bareProcess {
	b.Helper()
	r := &bareProcess{cmd: exec.CommandContext(context.WithoutCancel(b.Context()), p.path, p.url, p.body)}
	r.cmd.Env, r.cmd.Stderr = []string{}, os.Stderr
	in, err := r.cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := r.cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	r.in, r.lines = in, bufio.NewScanner(out)
	if err := r.cmd.Start(); err != nil {
		b.Fatal(err)
	}
	return r
}

// ask waits for the first text of an answer.
func (r *bareProcess) ask(b *testing.B) {
	b.Helper()
	if _, err := io.WriteString(r.in, "\n"); err != nil {
		b.Fatal(err)
	}
	r.await(b, "first")
}

// finish waits for the end of an answer.
func (r *bareProcess) finish(b *testing.B) { b.Helper(); r.await(b, "texts") }

func (r *bareProcess) await(b *testing.B, word string) {
	b.Helper()
	for r.lines.Scan() {
		if strings.HasPrefix(r.lines.Text(), word) {
			return
		}
	}
	b.Fatal("the bare process ended")
}

func (r *bareProcess) end(b *testing.B) {
	b.Helper()
	_ = r.in.Close()
	for r.lines.Scan() { // what it still has to say
	}
	if err := r.cmd.Wait(); err != nil {
		b.Error(err)
	}
}
