package bench

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"strings"
	"time"

	"carrel/internal/anthropictest"
	"carrel/protocol"
)

// askAgentSDK is a program of node's: a line as soon as query() has streamed text.
const askAgentSDK = `
import { query } from "@anthropic-ai/claude-agent-sdk";
let told = false;
for await (const m of query({ prompt: "hello", options: { includePartialMessages: true, settingSources: [], maxTurns: 1 } })) {
  if (!told && m.type === "stream_event" && m.event.delta?.type === "text_delta") {
    told = true;
    console.log("first");
  }
}
`

const modelKey = "sk-ant-bench"

// texts is the time from a message to the first text of a model's answer, for a user who
// has no worker. The model is scripted, and answers at once.
func (f *field) texts() {
	t := f.t
	model := anthropictest.New(t, anthropictest.Options{Otherwise: func(*anthropictest.Request) anthropictest.Reply {
		return anthropictest.Say("first ", "and ", "last").Reply
	}})
	env := []string{"ANTHROPIC_API_KEY=" + modelKey, "ANTHROPIC_BASE_URL=" + model.URL}
	pooled := f.serve(append(env, "SANDBOX_WARM_WORKERS=2")...)
	unpooled := f.serve(append(env, "SANDBOX_WARM_WORKERS=0")...)
	text := func(url, user string) float64 {
		var took time.Duration
		began := time.Now()
		stream(t, url, user, "hello", func(data []byte) {
			if took == 0 && bytes.Contains(data, []byte(protocol.EventTextDelta)) {
				took = time.Since(began)
			}
		})
		return milliseconds(took)
	}
	text(unpooled.URL, "bound")
	sdk := subject{name: "claude-agent-sdk, query()"}
	if _, err := os.Stat(peersDir() + "/node_modules/@anthropic-ai/claude-agent-sdk"); err == nil {
		sdk.take = func() []float64 { return []float64{f.agentSDK(model.URL)} }
	} else {
		f.results.LeftOut = append(f.results.LeftOut, sdk.name+": not installed (scripts/bench-peers.sh)")
	}
	f.results.run(t, contest{
		name: "first text of a model", unit: "ms", beside: sdk.name, rounds: max(2, f.size.rounds/2),
		subjects: subjects(
			subject{"carrel, new user, warm pool", func() []float64 {
				f.ready(pooled, 2)
				took := text(pooled.URL, f.newUser())
				f.retire(pooled, f.users)
				return []float64{took}
			}},
			subject{"carrel, new user, no warm pool", func() []float64 {
				took := text(unpooled.URL, f.newUser())
				f.retire(unpooled, f.users)
				return []float64{took}
			}},
			subject{"carrel, bound", func() []float64 { return []float64{text(unpooled.URL, "bound")} }},
			sdk,
		),
		targets: []target{{subject: "carrel, new user, warm pool", beside: sdk.name, at: 0.5, times: 0.05}},
	})
}

// agentSDK measures from the start of node to the first text of query(), in a home
// of its own.
func (f *field) agentSDK(url string) float64 {
	t := f.t
	home := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "node", "--input-type=module", "-e", askAgentSDK)
	cmd.Dir, cmd.Stderr = peersDir(), os.Stderr
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + home, "CLAUDE_CONFIG_DIR=" + home, "ANTHROPIC_API_KEY=" + modelKey, "ANTHROPIC_BASE_URL=" + url,
		"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1",
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var took time.Duration
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if took == 0 && strings.HasPrefix(lines.Text(), "first") {
			took = time.Since(began)
		}
	}
	if err := cmd.Wait(); err != nil || took == 0 {
		t.Fatalf("query() gave no text: %v", err)
	}
	return milliseconds(took)
}
