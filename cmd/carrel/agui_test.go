package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"carrel/internal/anthropictest"
	"carrel/protocol"
)

// AG-UI's own client, in Node, has a whole conversation with a daemon: text as it
// comes, tools, approvals that are allowed, denied, put aside and asked for again.
func TestHttpAgent(t *testing.T) {
	const making = "echo kept > keep; cp keep keep2; echo made"
	script := turns(
		step{message: "make", calls: []anthropictest.Block{bash("t_make", making)}, results: []string{"made"}, answer: "There."},
		removal("remove", "removed 'keep'", "Gone."),
		removal("remove more", "!denied by a person: not today", "A pity."),
		step{
			message: "remove both", answer: "Both.",
			calls:   []anthropictest.Block{bash("t_one", "rm -v keep2"), bash("t_other", "rm -v keep2")},
			results: []string{"", ""},
		},
		step{message: "fail"},
		step{message: "fail", answer: "Well now."},
	)
	script[0].Reply.Blocks = []anthropictest.Block{
		anthropictest.Thinking("signature", "Let me ", "see."), anthropictest.Text("I make ", "it."), bash("t_make", making),
	}
	both := &script[len(script)-3]
	both.Expect = nil // which of the two is asked about first is not for the model to say
	script[len(script)-2].Reply = anthropictest.Reply{Status: 400, Error: "invalid_request_error", Message: "broken"}

	s := play(t, script, permissions(t, askForRemoval))
	installed := filepath.Join(filepath.Dir(program(t)), "httpagent", "node_modules")
	if _, err := os.Stat(installed); err != nil {
		t.Fatalf("%v (make httpagent installs it)", err)
	}
	cmd := exec.CommandContext(t.Context(), "node", filepath.Join("testdata", "httpagent", "drive.mjs"), installed, s.url+"/v1/ag-ui")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s\n%s", err, &out, s.log)
	}
	if !strings.Contains(out.String(), `"messages":`) {
		t.Errorf("it did not come to its end: %s", &out)
	}
	status, body := s.get("/v1/runs", nil)
	var runs protocol.RunPage
	if err := json.Unmarshal(body, &runs); err != nil || len(runs.Runs) != 6 {
		t.Errorf("status %d, %d runs, %v; want one for each message, and one more for the one that failed", status, len(runs.Runs), err)
	}
	for _, run := range runs.Runs {
		if run.UserID != "ana ☃" || run.SessionID != "3f0c9a52-7d0e-4c9b-8a55-0d6f6f6f0001" {
			t.Errorf("the run %+v", run)
		}
	}
	s.stop()
}
