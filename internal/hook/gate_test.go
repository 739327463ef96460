package hook

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"carrel/internal/tool"
	"carrel/protocol"
)

// world is what a gate sees of everything else.
type world struct {
	decided   []protocol.DecidedParams
	approvals []protocol.ApproveParams
	approve   func(protocol.ApproveParams) (protocol.ApproveResult, error)
	asked     []protocol.HookParams
	answers   []protocol.HookResult // of webhooks, in order
	command   func(ctx context.Context, c tool.Command) (tool.Exit, error)
	links     map[string]string
}

func (w *world) gate(t *testing.T, mode string, p protocol.Permissions) *Gate {
	t.Helper()
	g, err := NewGate(GateOptions{
		Policy: policy(t, p), Mode: mode, RunID: "run_1", SessionID: "s",
		Dir: func() string { return "/workspace/d" },
		Resolve: func(_ context.Context, p string) (string, error) {
			if p == "/workspace/d/lost" {
				return "", errors.New("the tool host is gone")
			}
			if to, ok := w.links[p]; ok {
				return to, nil
			}
			return p, nil
		},
		Approve: func(_ context.Context, p protocol.ApproveParams) (protocol.ApproveResult, error) {
			w.approvals = append(w.approvals, p)
			return w.approve(p)
		},
		Webhook: func(_ context.Context, p protocol.HookParams) (protocol.HookResult, error) {
			w.asked = append(w.asked, p)
			answer := w.answers[0]
			w.answers = w.answers[1:]
			return answer, nil
		},
		Decided: func(_ context.Context, p protocol.DecidedParams) { w.decided = append(w.decided, p) },
		Run:     func(ctx context.Context, c tool.Command) (tool.Exit, error) { return w.command(ctx, c) },
	})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func says(decision, reason, input string) func(protocol.ApproveParams) (protocol.ApproveResult, error) {
	return func(protocol.ApproveParams) (protocol.ApproveResult, error) {
		return protocol.ApproveResult{Decision: decision, Reason: reason, Input: json.RawMessage(input)}, nil
	}
}

func callOf(name, input string) tool.Call {
	return tool.Call{ID: "1", Name: name, Input: json.RawMessage(input)}
}

func TestModes(t *testing.T) {
	p := protocol.Permissions{Ask: []string{"bash", "write", "read(secret/**)"}, Deny: []string{"bash(rm *)", "write(/workspace/locked/**)"}}
	const denied, asked, passed = "denied", "asked", "passed"
	for _, tt := range []struct {
		call                                tool.Call
		normal, acceptEdits, plan, bypassed string
	}{
		{callOf("bash", `{"command":"ls"}`), asked, asked, denied, passed},
		{callOf("bash", `{"command":"rm x"}`), denied, denied, denied, denied},
		{callOf("write", `{"path":"x"}`), asked, passed, denied, passed},
		{callOf("write", `{"path":"../locked/x"}`), denied, denied, denied, denied},
		{callOf("write", `{"path":"/workspace/link"}`), denied, denied, denied, denied},
		{callOf("write", `{"path":"../x/../locked//x"}`), denied, denied, denied, denied},
		{callOf("write", `{"path":"lost"}`), denied, denied, denied, denied},
		{callOf("read", `{"path":"x"}`), passed, passed, passed, passed},
		{callOf("read", `{"path":"/workspace/secret/x"}`), asked, asked, asked, passed},
		{callOf("grep", `{"pattern":"x"}`), passed, passed, passed, passed},
		{callOf("mcp__x", `{}`), passed, passed, denied, passed},
	} {
		for mode, want := range map[string]string{"": tt.normal, "default": tt.normal, "accept_edits": tt.acceptEdits, "plan": tt.plan, "bypass": tt.bypassed} {
			w := &world{approve: says("allow", "", ""), links: map[string]string{"/workspace/link": "/workspace/locked/y"}}
			call, denial, _, err := w.gate(t, mode, p).Before(t.Context(), tt.call)
			got := passed
			switch {
			case err != nil:
				t.Error(err)
			case denial != "":
				got = denied
			case len(w.approvals) > 0:
				got = asked
			}
			if got != want || got != denied && cmp.Diff(call, tt.call) != "" {
				t.Errorf("%s %s in %q: %s, want %s (%s)", tt.call.Name, tt.call.Input, mode, got, want, denial)
			}
		}
	}
	if _, err := NewGate(GateOptions{Mode: "yolo"}); protocol.CodeOf(err) != protocol.CodeInvalidRequest {
		t.Errorf("an unknown mode: %v", err)
	}
}

func TestHostIsToldWhoHasDecided(t *testing.T) {
	p := protocol.Permissions{
		Allow: []string{"bash(ls *)", "write"}, Ask: []string{"bash(git *)"}, Deny: []string{"bash(rm *)", "edit(locked/**)"},
		Hooks: []protocol.Hook{
			{Event: protocol.HookBeforeTool, Match: "glob", Webhook: "http://a"}, {Event: protocol.HookBeforeTool, Match: "bash(git *)", Webhook: "http://b"},
		},
	}
	hook := func(decision string) []protocol.HookResult { return []protocol.HookResult{{Decision: decision}} }
	for _, tt := range []struct {
		name, mode, tool, input string
		hooks                   []protocol.HookResult
		person                  string
		want                    string
	}{
		{"deny rule", "", "bash", `{"command":"rm x"}`, nil, "", "deny rule bash(rm *)"},
		{"allow rule", "", "bash", `{"command":"ls x"}`, nil, "", "allow rule bash(ls *)"},
		{"no rule", "", "read", `{"path":"x"}`, nil, "", "allow default "},
		{"person's yes", "", "bash", `{"command":"git push"}`, hook(""), "allow", "allow person bash(git *)"},
		{"person's no", "", "bash", `{"command":"git push"}`, hook(""), "deny", "deny person bash(git *)"},
		{"hook's no", "", "glob", `{"pattern":"x"}`, hook("deny"), "", "deny hook 0"},
		{"second hook's yes", "", "bash", `{"command":"git push"}`, hook("allow"), "", "allow hook 1"},
		{"hook that fails", "", "glob", `{"pattern":"x"}`, hook("nonsense"), "", "deny hook 0"},
		{"mode's no", "plan", "bash", `{"command":"ls x"}`, nil, "", "deny mode plan"},
		{"mode's yes", "bypass", "bash", `{"command":"git push"}`, hook(""), "", "allow mode bypass"},
		{"nobody can tell", "", "edit", `{"path":"lost"}`, nil, "", "deny doubt "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := &world{approve: says(tt.person, "", ""), answers: tt.hooks}
			_, denial, _, err := w.gate(t, tt.mode, p).Before(t.Context(), callOf(tt.tool, tt.input))
			if err != nil || len(w.decided) != 1 {
				t.Fatalf("%v, told of %+v", err, w.decided)
			}
			got := w.decided[0]
			if is := strings.Join([]string{got.Decision, string(got.By), got.Rule}, " "); is != tt.want || (got.Decision == "deny") != (denial != "") {
				t.Errorf("it is %q, want %q (%s)", is, tt.want, denial)
			}
			if got.Tool != tt.tool || got.Input != tt.input || got.CallID != "1" || got.RunID != "run_1" || got.Fault() != "" {
				t.Errorf("it tells %+v", got)
			}
		})
	}
}

// A model writes ids, names and inputs of any length.
func TestWhatTheHostIsToldIsBounded(t *testing.T) {
	w := &world{}
	c := tool.Call{ID: strings.Repeat("é", 1000), Name: strings.Repeat("x", 1000), Input: json.RawMessage(`{"a":"` + strings.Repeat("\xffé", 9000) + `"}`)}
	if _, _, _, err := w.gate(t, "", protocol.Permissions{}).Before(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if fault := w.decided[0].Fault(); fault != "" || !utf8.ValidString(w.decided[0].Input+w.decided[0].CallID) {
		t.Errorf("%s: %+v", fault, w.decided[0])
	}
}

func TestApproval(t *testing.T) {
	p := protocol.Permissions{Ask: []string{"bash"}, Deny: []string{"bash(rm *)"}}
	for _, tt := range []struct {
		name, input string
		approve     func(protocol.ApproveParams) (protocol.ApproveResult, error)
		want        string // of the denial; "" = it passes
		changed     string
	}{
		{"yes", `{"command":"ls"}`, says("allow", "", ""), "", `{"command":"ls"}`},
		{"yes with null", `{"command":"ls"}`, says("allow", "", "null"), "", `{"command":"ls"}`},
		{"no", `{"command":"ls"}`, says("deny", "not today", ""), "denied by a person: not today", ""},
		{"no without a word", `{"command":"ls"}`, says("deny", "", ""), "denied by a person", ""},
		{"neither", `{"command":"ls"}`, says("", "", ""), "denied by a person", ""},
		{"other words", `{"command":"ls"}`, says("ALLOW", "", ""), "denied by a person", ""},
		{"changed", `{"command":"ls"}`, says("allow", "", `{"command":"ls -l"}`), "", `{"command":"ls -l"}`},
		{"changed into what is denied", `{"command":"ls"}`, says("allow", "", `{"command":"rm x"}`), `rule "bash(rm *)" denies`, ""},
		{"host is gone", `{"command":"ls"}`, func(protocol.ApproveParams) (protocol.ApproveResult, error) {
			return protocol.ApproveResult{Decision: "allow"}, errors.New("closed")
		}, "nobody could be asked: closed", ""},
	} {
		w := &world{approve: tt.approve}
		call, denial, _, err := w.gate(t, "", p).Before(t.Context(), callOf("bash", tt.input))
		if err != nil || (tt.want == "") != (denial == "") || !strings.Contains(denial, tt.want) {
			t.Errorf("%s: %q, %v", tt.name, denial, err)
		}
		if tt.want == "" && string(call.Input) != tt.changed {
			t.Errorf("%s: input %s", tt.name, call.Input)
		}
		if len(w.approvals) != 1 || w.approvals[0].RunID != "run_1" || !strings.Contains(w.approvals[0].Reason, `rule "bash" asks`) {
			t.Errorf("%s: asked %+v", tt.name, w.approvals)
		}
	}
	g, err := NewGate(GateOptions{Policy: policy(t, p)})
	if err != nil {
		t.Fatal(err)
	}
	if _, denial, _, _ := g.Before(t.Context(), callOf("bash", `{"command":"ls"}`)); !strings.Contains(denial, "nobody is there to ask") {
		t.Errorf("%q", denial)
	}
}

func TestHooksBeforeATool(t *testing.T) {
	web := func(match string) protocol.Hook {
		return protocol.Hook{Event: protocol.HookBeforeTool, Match: match, Webhook: "x"}
	}
	deny := []string{"bash(rm *)"}
	for _, tt := range []struct {
		name    string
		p       protocol.Permissions
		answers []protocol.HookResult
		input   string
		denial  string
		changed string
		note    string
		asked   int // hooks
		person  int
	}{
		{"silent", protocol.Permissions{Hooks: []protocol.Hook{web("")}}, []protocol.HookResult{{}}, `{"command":"ls"}`, "", `{"command":"ls"}`, "", 1, 0},
		{"denies", protocol.Permissions{Hooks: []protocol.Hook{web(""), web("")}}, []protocol.HookResult{{Decision: "deny", Reason: "no"}}, `{"command":"ls"}`, "denied by a hook: no", "", "", 1, 0},
		{"asks", protocol.Permissions{Hooks: []protocol.Hook{web("")}}, []protocol.HookResult{{Decision: "ask", Reason: "hm"}}, `{"command":"ls"}`, "", `{"command":"ls"}`, "", 1, 1},
		{"allows what a rule asks", protocol.Permissions{Ask: []string{"bash"}, Hooks: []protocol.Hook{web("")}}, []protocol.HookResult{{Decision: "allow"}}, `{"command":"ls"}`, "", `{"command":"ls"}`, "", 1, 0},
		{"cannot allow what is denied", protocol.Permissions{Deny: deny, Hooks: []protocol.Hook{web("")}}, nil, `{"command":"rm x"}`, "denies it", "", "", 0, 0},
		{"one allows, one asks", protocol.Permissions{Hooks: []protocol.Hook{web(""), web("")}}, []protocol.HookResult{{Decision: "allow"}, {Decision: "ask"}}, `{"command":"ls"}`, "", `{"command":"ls"}`, "", 2, 1},
		{"rewrites", protocol.Permissions{Hooks: []protocol.Hook{web(""), web("bash(ls -l)")}}, []protocol.HookResult{{Input: json.RawMessage(`{"command":"ls -l"}`), Context: "a"}, {Context: "b"}}, `{"command":"ls"}`, "", `{"command":"ls -l"}`, "a\nb", 2, 0},
		{"rewrites into what is denied", protocol.Permissions{Deny: deny, Hooks: []protocol.Hook{web("")}}, []protocol.HookResult{{Decision: "allow", Input: json.RawMessage(`{"command":"rm x"}`)}}, `{"command":"ls"}`, "denies it", "", "", 1, 0},
		{"is not asked", protocol.Permissions{Hooks: []protocol.Hook{web("bash(git *)"), web("read")}}, nil, `{"command":"ls"}`, "", `{"command":"ls"}`, "", 0, 0},
		{"is asked where it may be meant", protocol.Permissions{Hooks: []protocol.Hook{web("bash(git *)")}}, []protocol.HookResult{{Decision: "deny"}}, `{"command":"$X y"}`, "denied by a hook", "", "", 1, 0},
		{"unknown word", protocol.Permissions{Hooks: []protocol.Hook{web("")}}, []protocol.HookResult{{Decision: "sure"}}, `{"command":"ls"}`, `its decision "sure" is none`, "", "", 1, 0},
		{"input that is no object", protocol.Permissions{Hooks: []protocol.Hook{web("")}}, []protocol.HookResult{{Input: json.RawMessage(` []`)}}, `{"command":"ls"}`, "its input is no JSON object", "", "", 1, 0},
	} {
		w := &world{answers: tt.answers, approve: says("allow", "", "")}
		call, denial, note, err := w.gate(t, "", tt.p).Before(t.Context(), callOf("bash", tt.input))
		if err != nil || (tt.denial == "") != (denial == "") || !strings.Contains(denial, tt.denial) || note != tt.note {
			t.Errorf("%s: %q %q %v", tt.name, denial, note, err)
		}
		if tt.denial == "" && string(call.Input) != tt.changed {
			t.Errorf("%s: input %s", tt.name, call.Input)
		}
		if len(w.asked) != tt.asked || len(w.approvals) != tt.person {
			t.Errorf("%s: %d hooks and %d people were asked", tt.name, len(w.asked), len(w.approvals))
		}
	}
}

func TestCommandHooks(t *testing.T) {
	prints := func(code int, out, errOut string) func(context.Context, tool.Command) (tool.Exit, error) {
		return func(_ context.Context, c tool.Command) (tool.Exit, error) {
			err := errors.Join(c.Output(tool.Stdout, out), c.Output(tool.Stderr, errOut))
			return tool.Exit{Code: code}, err
		}
	}
	hooks := []protocol.Hook{{Event: protocol.HookBeforeTool, Command: &protocol.Command{Args: []string{"check", "it"}}}}
	for _, tt := range []struct {
		name   string
		run    func(context.Context, tool.Command) (tool.Exit, error)
		denial string
		person int
	}{
		{"nothing", prints(0, "", "noise"), "", 1},
		{"an empty object", prints(0, "{}\n", ""), "", 1},
		{"a yes is no more than no objection", prints(0, `{"decision":"allow"}`, ""), "", 1},
		{"a no", prints(0, `{"decision":"deny","reason":"because"}`, ""), "denied by a hook: because", 0},
		{"status 2", prints(2, "ignored", " why \n"), "denied by a hook: why", 0},
		{"status 1", prints(1, `{"decision":"allow"}`, "broken"), "failed: exit status 1: broken", 0},
		{"not found", prints(127, "", "not found"), "exit status 127", 0},
		{"no JSON", prints(0, "fine", ""), "its answer: invalid", 0},
		{"too long", prints(0, strings.Repeat(" ", 3<<20)+"{}", ""), "at most 1048576", 0},
		{"no start", func(context.Context, tool.Command) (tool.Exit, error) { return tool.Exit{}, errors.New("no host") }, "no host", 0},
	} {
		var stdin protocol.HookParams
		w := &world{approve: says("allow", "", "")}
		w.command = func(ctx context.Context, c tool.Command) (tool.Exit, error) {
			if err := json.NewDecoder(c.Stdin).Decode(&stdin); err != nil || strings.Join(c.Argv, " ") != "check it" || c.Dir != "/workspace" {
				t.Errorf("%s: %v %+v", tt.name, err, c)
			}
			return tt.run(ctx, c)
		}
		_, denial, _, err := w.gate(t, "", protocol.Permissions{Ask: []string{"bash"}, Hooks: hooks}).Before(t.Context(), callOf("bash", `{"command":"ls"}`))
		if err != nil || (tt.denial == "") != (denial == "") || !strings.Contains(denial, tt.denial) || len(w.approvals) != tt.person {
			t.Errorf("%s: %q %v, %d approvals", tt.name, denial, err, len(w.approvals))
		}
		want := protocol.HookParams{Event: "before_tool", RunID: "run_1", SessionID: "s", Cwd: "/workspace/d", Tool: "bash", Input: json.RawMessage(`{"command":"ls"}`)}
		if diff := cmp.Diff(want, stdin); diff != "" {
			t.Errorf("%s: %s", tt.name, diff)
		}
	}
}

func TestHookThatDoesNotAnswerDenies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{command: func(ctx context.Context, _ tool.Command) (tool.Exit, error) {
			<-ctx.Done()
			return tool.Exit{}, context.Cause(ctx)
		}}
		silent := func(event protocol.HookEvent) protocol.Permissions {
			return protocol.Permissions{Hooks: []protocol.Hook{{Event: event, Command: &protocol.Command{Shell: "sleep 100"}, TimeoutSeconds: 3}}}
		}
		start := time.Now()
		if _, denial, _, err := w.gate(t, "bypass", silent("before_tool")).Before(t.Context(), callOf("read", `{}`)); err != nil || !strings.Contains(denial, "no answer within 3s") {
			t.Errorf("%q %v", denial, err)
		}
		if took := time.Since(start); took != 3*time.Second {
			t.Errorf("after %s", took)
		}
		if r := w.gate(t, "", silent("after_tool")).After(t.Context(), callOf("read", `{}`), tool.Result{Content: "secret"}); !r.IsError || strings.Contains(r.Content, "secret") {
			t.Errorf("%+v", r)
		}
		if _, denial, err := w.gate(t, "", silent("prompt")).Prompt(t.Context(), "hello"); err != nil || denial == "" {
			t.Errorf("%q %v", denial, err)
		}
		if err := w.gate(t, "", silent("stop")).Stop(t.Context()); err == nil {
			t.Error("no error of a stop hook")
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		cause := errors.New("the run was canceled")
		cancel(cause)
		if _, _, _, err := w.gate(t, "", silent("before_tool")).Before(ctx, callOf("read", `{}`)); !errors.Is(err, cause) {
			t.Errorf("canceled: %v", err)
		}
	})
}

func TestAfterPromptAndStop(t *testing.T) {
	hook := func(event protocol.HookEvent) protocol.Permissions {
		return protocol.Permissions{Hooks: []protocol.Hook{{Event: event, Webhook: "x"}}}
	}
	after := func(answer protocol.HookResult) (tool.Result, *world) {
		w := &world{answers: []protocol.HookResult{answer}}
		return w.gate(t, "", hook("after_tool")).After(t.Context(), callOf("bash", `{"command":"ls"}`), tool.Result{Content: "out\n", Bytes: 4}), w
	}
	if r, w := after(protocol.HookResult{Context: "note"}); r.Content != "out\n\nnote" || w.asked[0].Result.Content != "out\n" {
		t.Errorf("%+v, asked %+v", r, w.asked)
	}
	if r, _ := after(protocol.HookResult{Decision: "deny", Reason: "private"}); !r.IsError || !strings.Contains(r.Content, "withholds its result: private") {
		t.Errorf("%+v", r)
	}
	prompt := func(answer protocol.HookResult) (string, string) {
		w := &world{answers: []protocol.HookResult{answer}}
		text, denial, err := w.gate(t, "", hook("prompt")).Prompt(t.Context(), "hello")
		if err != nil || string(w.asked[0].Input) != `{"prompt":"hello"}` {
			t.Errorf("%v %s", err, w.asked[0].Input)
		}
		return text, denial
	}
	if text, denial := prompt(protocol.HookResult{Context: "it is Monday"}); text != "hello\n\nit is Monday" || denial != "" {
		t.Errorf("%q %q", text, denial)
	}
	if text, denial := prompt(protocol.HookResult{Input: json.RawMessage(`{"prompt":"bye"}`)}); text != "bye" || denial != "" {
		t.Errorf("%q %q", text, denial)
	}
	if _, denial := prompt(protocol.HookResult{Input: json.RawMessage(`{}`)}); denial == "" {
		t.Error("an input without a prompt passed")
	}
	if _, denial := prompt(protocol.HookResult{Decision: "deny", Reason: "no"}); denial != "denied by a hook: no" {
		t.Errorf("%q", denial)
	}
	w := &world{answers: []protocol.HookResult{{Decision: "deny"}}}
	if err := w.gate(t, "", hook("stop")).Stop(t.Context()); err != nil || len(w.asked) != 1 {
		t.Errorf("%v %+v", err, w.asked)
	}
}
