package main

import (
	"bufio"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
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

// agentSDK measures from the start of node to the first text of query(), in a home
// of its own.
func agentSDK(b *testing.B, dir, url string) time.Duration {
	b.Helper()
	home := b.TempDir()
	cmd := exec.CommandContext(b.Context(), "node", "--input-type=module", "-e", askAgentSDK)
	cmd.Dir, cmd.Stderr = dir, os.Stderr
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + home, "CLAUDE_CONFIG_DIR=" + home, "ANTHROPIC_API_KEY=" + canary, "ANTHROPIC_BASE_URL=" + url,
		"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1",
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	start := time.Now()
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	var took time.Duration
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if took == 0 && strings.HasPrefix(lines.Text(), "first") {
			took = time.Since(start)
		}
	}
	if err := cmd.Wait(); err != nil || took == 0 {
		b.Fatalf("query() gave no text: %v", err)
	}
	return took
}
