package claude

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"carrel/internal/agent"
	"carrel/internal/anthropictest"
	"carrel/internal/tool"
	"carrel/protocol"
)

func TestAnswerStreamsAndBecomesTheResult(t *testing.T) {
	turn := use(anthropictest.Thinking("sig", "let me", " see"), anthropictest.Text("Hello", ", ", "you."))
	turn.Reply.Usage = anthropictest.Usage{InputTokens: 5, CacheReadInputTokens: 70, CacheCreationInputTokens: 20, OutputTokens: 8}
	turn.Reply.Fault.Ping = true
	turn.Expect = func(q *anthropictest.Request) error {
		if q.Model != DefaultModel || q.MaxTokens != DefaultMaxTokens || q.Header.Get("Carrel-Run") != "run_1" || !q.Stream {
			return fmt.Errorf("model %s, %d tokens, header %v", q.Model, q.MaxTokens, q.Header)
		}
		for _, name := range []string{"X-Api-Key", "Authorization"} {
			if _, there := q.Header[name]; there {
				return errors.New("the agent has no key, and sends none")
			}
		}
		return nil
	}
	g := newRig(t, turn)
	o := g.ok("hi")
	if diff := cmp.Diff("THINKING_DELTA TEXT_DELTA USAGE", o.sorts()); diff != "" {
		t.Error(diff)
	}
	if o.told(protocol.EventThinkingDelta) != "let me see" || o.told(protocol.EventTextDelta) != "Hello, you." {
		t.Errorf("%v", o.events)
	}
	o.result.Duration = 0
	want := &protocol.Result{
		RunID: "run_1", SessionID: "s", Status: protocol.StatusFinished, Content: "Hello, you.", ToolCalls: []protocol.ToolCall{},
		TokensUsed: 103, Usage: protocol.Usage{InputTokens: 5, OutputTokens: 8, CacheReadTokens: 70, CacheCreationTokens: 20}, StopReason: "end_turn",
	}
	if diff := cmp.Diff(want, o.result); diff != "" {
		t.Error(diff)
	}
	if g.tools.closed != 1 {
		t.Errorf("the tools were closed %d times", g.tools.closed)
	}
}

// The environment holds a key and another address: neither may have any effect.
func TestEnvironmentIsNotRead(t *testing.T) {
	t.Setenv("ANTHROPIC_API_KEY", "sk-ant-canary")
	t.Setenv("ANTHROPIC_AUTH_TOKEN", "canary")
	t.Setenv("ANTHROPIC_BASE_URL", "http://127.0.0.1:1")
	t.Setenv("ANTHROPIC_CUSTOM_HEADERS", "X-Canary: canary")
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	g := newRig(t, anthropictest.Say("ok"))
	g.ok("hi")
	q := g.server.Requests()[0]
	if all := fmt.Sprint(q.Header) + string(q.Body); strings.Contains(all, "canary") {
		t.Error(all)
	}
}

func TestConfigOfARun(t *testing.T) {
	turn := anthropictest.Say("ok")
	turn.Expect = func(q *anthropictest.Request) error {
		if q.Model != "claude-x" || q.MaxTokens != 77 || len(q.System) != 2 || q.System[1].Text != "Be a pirate." {
			return fmt.Errorf("%+v", q)
		}
		return nil
	}
	newRig(t, turn).ok("hi", func(r *agent.Run) {
		r.Config = protocol.RunConfig{Model: "claude-x", MaxTokens: 77, System: "Be a pirate."}
	})
}

// Two calls of one answer are under way at once, the second one ends first, and
// the model sees them in its own order.
func TestCallsOfOneAnswerRunSideBySide(t *testing.T) {
	g := newRig(t,
		use(anthropictest.Text("Looking."), anthropictest.ToolUse("t1", "bash", `{"command"`, `:"a"}`), anthropictest.ToolUse("t2", "read", `{"path":"b"}`)),
		results(anthropictest.Say("Done."), "t1 false first", "t2 true second"))
	secondDone := make(chan struct{})
	g.tools.does["bash"] = func(ctx context.Context, _ tool.Call, output func(tool.Stream, string) error) tool.Result {
		select {
		case <-secondDone:
		case <-ctx.Done():
			return failed("they do not run side by side")
		}
		if err := output(tool.Stderr, "a warning"); err != nil {
			t.Error(err)
		}
		return tool.Result{Content: "first"}
	}
	g.tools.does["read"] = func(context.Context, tool.Call, func(tool.Stream, string) error) tool.Result {
		close(secondDone)
		return tool.Result{Content: "second", IsError: true}
	}
	o := g.ok("hi")
	want := []event{
		{"TEXT_DELTA", `{"text":"Looking."}`},
		{"TOOL_CALL_START", `{"id":"t1","name":"bash"}`},
		{"TOOL_CALL_ARGS", `{"id":"t1","delta":"{\"command\""}`},
		{"TOOL_CALL_ARGS", `{"id":"t1","delta":":\"a\"}"}`},
		{"TOOL_CALL_START", `{"id":"t2","name":"read"}`},
		{"TOOL_CALL_ARGS", `{"id":"t2","delta":"{\"path\":\"b\"}"}`},
		{"USAGE", `{"input_tokens":100,"output_tokens":10,"cache_read_tokens":0,"cache_creation_tokens":0,"cost_usd":0}`},
		{"TOOL_OUTPUT", `{"id":"t1","stream":"stderr","text":"a warning"}`},
		{"TOOL_CALL_RESULT", `{"id":"t1","name":"bash","result":"first","is_error":false}`},
		{"TOOL_CALL_RESULT", `{"id":"t2","name":"read","result":"second","is_error":true}`},
		{"TEXT_DELTA", `{"text":"Done."}`},
		{"USAGE", `{"input_tokens":200,"output_tokens":20,"cache_read_tokens":0,"cache_creation_tokens":0,"cost_usd":0}`},
	}
	if diff := cmp.Diff(want, o.events); diff != "" {
		t.Error(diff)
	}
	wantCalls := []protocol.ToolCall{
		{ID: "t1", Name: "bash", Input: json.RawMessage(`{"command":"a"}`), Result: "first"},
		{ID: "t2", Name: "read", Input: json.RawMessage(`{"path":"b"}`), Result: "second", IsError: true},
	}
	if diff := cmp.Diff(wantCalls, o.result.ToolCalls); diff != "" {
		t.Error(diff)
	}
	if o.result.Content != "Done." {
		t.Errorf("content %q: text before a tool call is no answer", o.result.Content)
	}
}

func TestStopReasons(t *testing.T) {
	with := func(reason string, blocks ...anthropictest.Block) anthropictest.Turn {
		turn := use(blocks...)
		turn.Reply.StopReason = reason
		return turn
	}
	text, call := anthropictest.Text("some text"), anthropictest.ToolUse("t1", "bash", `{}`)
	for _, test := range []struct {
		name, want, content string
		script              []anthropictest.Turn
	}{
		{"end of turn", "end_turn", "some text", []anthropictest.Turn{with("end_turn", text)}},
		{"nothing to say", "end_turn", "", []anthropictest.Turn{with("end_turn")}},
		{"too many tokens", "max_tokens", "some text", []anthropictest.Turn{with("max_tokens", text)}},
		{"refusal", "refusal", "some text", []anthropictest.Turn{with("refusal", text)}},
		{"full window", "model_context_window_exceeded", "some text", []anthropictest.Turn{with("model_context_window_exceeded", text)}},
		{"pause", "end_turn", "some textthe rest", []anthropictest.Turn{with("pause_turn", text), with("end_turn", anthropictest.Text("the rest"))}},
		{"too many turns", "max_turns", "some text", []anthropictest.Turn{with("tool_use", call), with("tool_use", text, call)}},
		{"too many pauses", "max_turns", "some textsome text", []anthropictest.Turn{with("pause_turn", text), with("pause_turn", text)}},
		{
			"call cut off", "end_turn", "ok",
			[]anthropictest.Turn{
				with("max_tokens", anthropictest.ToolUse("t1", "bash", `{"command":"cat > f <`)),
				expect(anthropictest.Say("ok"), func(last anthropictest.Message) error {
					if r := last.Results(); len(r) != 1 || !r[0].IsError || !strings.Contains(r[0].ResultText(), "cut off at its limit of 16384 tokens") {
						return fmt.Errorf("%+v", last)
					}
					return nil
				}),
			},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := newRig(t, test.script...).ok("hi", func(r *agent.Run) { r.Config.MaxTurns = 2 })
			if o.result.StopReason != test.want || o.result.Content != test.content {
				t.Errorf("%s %q, want %s %q", o.result.StopReason, o.result.Content, test.want, test.content)
			}
		})
	}
}

func TestRefusedTurnIsNotSentAgain(t *testing.T) {
	refused := anthropictest.Say("I cannot")
	refused.Reply.StopReason = "refusal"
	again := anthropictest.Say("ok")
	again.Expect = func(q *anthropictest.Request) error {
		if len(q.Messages) != 1 || q.Last().Text() != "something else" {
			return fmt.Errorf("%+v", q.Messages)
		}
		return nil
	}
	g := newRig(t, refused, again)
	g.ok("something bad")
	g.ok("something else")
}

// Nothing is done for an answer that nobody will look at.
func TestCallsOfTheLastTurnAreNotDone(t *testing.T) {
	g := newRig(t, use(anthropictest.ToolUse("t1", "bash", `{}`)))
	o := g.ok("hi", func(r *agent.Run) { r.Config.MaxTurns = 1 })
	if len(g.tools.calls) != 0 || !o.result.ToolCalls[0].IsError || !strings.HasPrefix(o.result.ToolCalls[0].Result, "Not done: the run may have 1 answers") {
		t.Errorf("%v %+v", g.tools.calls, o.result.ToolCalls)
	}
}

// The marks cover all that stays: tools, system prompt, and what the next request
// repeats. What was marked last time is found again in the cache.
func TestPromptIsMarkedForTheCache(t *testing.T) {
	g := newRig(t, use(anthropictest.ToolUse("t1", "bash", `{}`)), use(anthropictest.ToolUse("t2", "bash", `{}`)), anthropictest.Say("ok"))
	g.ok("hi")
	marked := func(q *anthropictest.Request) (at []string) {
		for i, tool := range q.Tools {
			if len(tool.CacheControl) > 0 {
				at = append(at, fmt.Sprint("tool ", i))
			}
		}
		for i, c := range q.System {
			if len(c.CacheControl) > 0 {
				at = append(at, fmt.Sprint("system ", i))
			}
		}
		for i, m := range q.Messages {
			for j, c := range m.Content {
				if len(c.CacheControl) > 0 {
					at = append(at, fmt.Sprint("message ", i, " ", j))
				}
			}
		}
		return at
	}
	var got [][]string
	for _, q := range g.server.Requests() {
		got = append(got, marked(q))
	}
	want := [][]string{
		{"tool 1", "system 1", "message 0 0"},
		{"tool 1", "system 1", "message 0 0", "message 2 0"},
		{"tool 1", "system 1", "message 2 0", "message 4 0"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// gate is one that does what a test says.
type gate struct {
	decide  func(c tool.Call) (tool.Call, string, error)
	prompt  func(text string) (string, string, error)
	stopped *int
}

func (g gate) Prompt(_ context.Context, text string) (prompt, denial string, err error) {
	if g.prompt == nil {
		return text, "", nil
	}
	return g.prompt(text)
}

func (g gate) Stop(context.Context) error {
	if g.stopped != nil {
		*g.stopped++
	}
	return errors.New("nobody minds")
}

func (g gate) Before(_ context.Context, c tool.Call) (allowed tool.Call, denial, note string, err error) {
	allowed, denial, err = g.decide(c)
	return allowed, denial, "a note", err
}

func (g gate) After(_ context.Context, c tool.Call, r tool.Result) tool.Result {
	r.Content += " (seen: " + string(c.Input) + ")"
	return r
}

func TestGateAllowsChangesAndDenies(t *testing.T) {
	g := newRig(t,
		use(anthropictest.ToolUse("t1", "bash", `{"command":"good"}`), anthropictest.ToolUse("t2", "bash", `{"command":"bad"}`),
			anthropictest.ToolUse("t3", "bash", `{"command":"odd"}`)),
		results(anthropictest.Say("ok"),
			`t1 false did {"command":"better"} (seen: {"command":"better"})`+"\n\na note",
			"t2 true a rule says no",
			"t3 true Not done: it could not be decided whether this is allowed."))
	g.options.Gate = func(*agent.Run, Tools) (Gate, error) {
		return gate{decide: func(c tool.Call) (tool.Call, string, error) {
			switch string(c.Input) {
			case `{"command":"good"}`:
				return tool.Call{ID: "other", Name: c.Name, Input: json.RawMessage(`{"command":"better"}`)}, "", nil
			case `{"command":"bad"}`:
				return c, "a rule says no", nil
			}
			return c, "", errors.New("the hook is broken")
		}}, nil
	}
	g.ok("hi")
	if len(g.tools.calls) != 1 || g.tools.calls[0].ID != "t1" {
		t.Errorf("done: %v", g.tools.calls)
	}
}

func TestGateSeesTheMessageFirstAndTheEndLast(t *testing.T) {
	stopped := 0
	g := newRig(t, anthropictest.Turn{
		Expect: func(q *anthropictest.Request) error {
			if got := q.Last().Text(); got != "hi, and more" {
				return fmt.Errorf("the message is %q", got)
			}
			return nil
		},
		Reply: anthropictest.Say("ok").Reply,
	})
	g.options.Gate = func(*agent.Run, Tools) (Gate, error) {
		return gate{stopped: &stopped, prompt: func(text string) (string, string, error) {
			if text == "bad" {
				return text, "denied by a hook", nil
			}
			return text + ", and more", "", nil
		}}, nil
	}
	g.ok("hi")
	if stopped != 1 {
		t.Errorf("the end was told %d times", stopped)
	}
	if o := g.run(t.Context(), "bad"); protocol.CodeOf(o.err) != protocol.CodeForbidden || stopped != 1 {
		t.Errorf("a denied message: %v, %d ends", o.err, stopped)
	}
}

// As many deltas as a fast model gives in ten seconds, in one go.
func TestTwentyThousandDeltasArriveInOrder(t *testing.T) {
	pieces := make([]string, 20_000)
	for i := range pieces {
		pieces[i] = fmt.Sprintf("%d ", i)
	}
	o := newRig(t, anthropictest.Say(pieces...)).ok("count")
	if got := o.told(protocol.EventTextDelta); got != strings.Join(pieces, "") || len(o.events) != len(pieces)+1 {
		t.Errorf("%d events, %d bytes", len(o.events), len(got))
	}
	if o.result.Content != strings.Join(pieces, "") {
		t.Error("the content is another")
	}
}

func TestHundredRunsAtOnce(t *testing.T) {
	server := anthropictest.New(t, anthropictest.Options{Otherwise: func(q *anthropictest.Request) anthropictest.Reply {
		if len(q.Messages) == 1 {
			return use(anthropictest.ToolUse("t1", "bash", `{}`)).Reply
		}
		return anthropictest.Say(strings.Split(strings.Repeat(q.Messages[0].Text(), 50), "-")...).Reply
	}})
	g := newRigOver(t, t.TempDir(), server)
	var all sync.WaitGroup
	for i := range 100 {
		all.Go(func() {
			message := fmt.Sprintf("run-%d-", i)
			o := g.run(t.Context(), message, func(r *agent.Run) { r.SessionID = fmt.Sprint("s", i) })
			if o.err != nil {
				t.Error(o.err)
			} else if want := strings.ReplaceAll(strings.Repeat(message, 50), "-", ""); o.told(protocol.EventTextDelta) != want {
				t.Errorf("run %d was told %q", i, o.told(protocol.EventTextDelta))
			}
		})
	}
	all.Wait()
}
