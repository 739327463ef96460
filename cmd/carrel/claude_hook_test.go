package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"carrel/internal/anthropictest"
	"carrel/protocol"
)

func TestPermissionsDenyWhateverTheModeSays(t *testing.T) {
	steps := []step{
		{
			message: "try", answer: "I may not.",
			calls: []anthropictest.Block{
				bash("t1", "echo x > keep; rm keep"), bash("t2", "env rm -f keep"), bash("t3", "ls"),
				call("t4", "write", map[string]any{"path": "secrets/a", "content": "x"}),
				bash("t5", "mkdir -p secrets; ln -s secrets alias"),
				call("t6", "write", map[string]any{"path": "plain", "content": "x"}),
			},
			results: []string{"!denied: ", "!denied: ", "", "!denied: ", "no output", "plain"},
		},
		{
			message: "by a link", answer: "Nor so.",
			calls:   []anthropictest.Block{call("t7", "write", map[string]any{"path": "alias/a", "content": "x"}), bash("t8", "ls secrets | wc -l")},
			results: []string{"!denied: ", "0"},
		},
	}
	s := play(t, turns(steps...), permissions(t, `{"deny": ["bash(rm *)", "write(secrets/**)"]}`))
	s.perform("ana", steps, func(r *protocol.ExecuteRequest) { r.Config.PermissionMode = "bypass" })
	s.stop()
}

func TestPlanModeChangesNothing(t *testing.T) {
	steps := []step{{
		message: "plan", answer: "A plan.",
		calls: []anthropictest.Block{
			bash("t1", "touch made"), call("t2", "write", map[string]any{"path": "made", "content": "x"}), call("t3", "glob", map[string]any{"pattern": "*"}),
		},
		results: []string{"!plan", "!plan", ""},
	}}
	s := play(t, turns(steps...))
	s.perform("ana", steps, func(r *protocol.ExecuteRequest) { r.Config.PermissionMode = "plan" })
	s.stop()
}

// The command runs where tools do: it sees no transcript.
func TestHookThatIsACommandRewritesTheInput(t *testing.T) {
	steps := []step{
		{message: "do", calls: []anthropictest.Block{bash("t1", "echo original")}, results: []string{"rewritten"}, answer: "Done."},
		{
			message: "what did it see?", answer: "Only its tier.",
			calls:   []anthropictest.Block{call("t2", "read", map[string]any{"path": "seen"})},
			results: []string{"'/home/agent': "},
		},
	}
	hook := `ls /home/agent 2>seen; cat >>seen; echo '{"input": {"command": "echo rewritten"}}'`
	rules, err := json.Marshal(protocol.Permissions{Hooks: []protocol.Hook{
		{Event: protocol.HookBeforeTool, Match: "bash", Command: &protocol.Command{Shell: hook}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	s := play(t, turns(steps...), permissions(t, string(rules)))
	s.perform("ana", steps)
	seen, err := s.client.Exec(t.Context(), "ana", protocol.ExecRequest{Command: protocol.Command{Shell: "cat seen"}})
	if err != nil || !strings.Contains(seen.Stdout, `"command":"echo original"`) {
		t.Errorf("the hook saw %+v, %v", seen, err)
	}
	s.stop()
}

func TestWebhookRewritesTheInputAndMayRefuseTheMessage(t *testing.T) {
	asked := make(chan protocol.HookParams, 4)
	policy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var p protocol.HookParams
		if err := json.NewDecoder(r.Body).Decode(&p); err != nil || r.URL.RawQuery != "token=hidden" {
			t.Errorf("the webhook gets %v, %s", err, r.URL)
		}
		asked <- p
		answer := protocol.HookResult{Input: json.RawMessage(`{"command":"echo by the webhook"}`), Context: "a word of the policy"}
		if p.Event == protocol.HookPrompt {
			answer = protocol.HookResult{}
			if strings.Contains(string(p.Input), "forbidden") {
				answer = protocol.HookResult{Decision: protocol.Deny, Reason: "not that word"}
			}
		}
		_ = json.NewEncoder(w).Encode(answer)
	}))
	t.Cleanup(policy.Close)
	steps := []step{{
		message: "do", answer: "Done.",
		calls:   []anthropictest.Block{bash("t1", "echo original; env; tr '\\0' ' ' < /proc/self/environ")},
		results: []string{"by the webhook\n\na word of the policy"},
	}}
	hooks := `{"hooks": [{"event": "before_tool", "match": "bash", "webhook": "URL"}, {"event": "prompt", "webhook": "URL"}]}`
	s := play(t, turns(steps...), permissions(t, strings.ReplaceAll(hooks, "URL", policy.URL+"/?token=hidden")))
	s.perform("ana", steps)
	for _, want := range []protocol.HookEvent{protocol.HookPrompt, protocol.HookBeforeTool} {
		if p := <-asked; p.Event != want || p.UserID != "ana" || p.SessionID != "s" || p.RunID == "" {
			t.Errorf("the webhook was asked %+v, want %s", p, want)
		}
	}
	run := s.execute("ana", "a forbidden thing")
	if e := s.ending(run.RunID); e.Code != protocol.CodeForbidden || !strings.Contains(e.Message, "not that word") {
		t.Errorf("the refused message ends with %+v", e)
	}
	if !memoryHolds(s.cmd.Process.Pid, "token=hidden") {
		t.Fatal("the search does not find what the daemon's memory holds")
	}
	for _, pid := range s.tree() {
		if memoryHolds(pid, "token=hidden") {
			t.Errorf("process %d below the daemon knows the webhook's address", pid)
		}
	}
	s.stop()
}
