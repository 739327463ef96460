package claude

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"carrel/internal/agent"
	"carrel/internal/agent/session"
	"carrel/internal/anthropictest"
	"carrel/internal/tool"
	"carrel/protocol"
)

// Ten turns over three runs and two workers: thinking, parallel tools, a pause,
// and everything said is before the model in every later turn.
func TestSessionOfTenTurns(t *testing.T) {
	bash := func(n int) anthropictest.Block {
		return anthropictest.ToolUse(fmt.Sprint("t", n), "bash", fmt.Sprintf(`{"command":"%d"}`, n))
	}
	did := func(n int) string { return fmt.Sprintf(`t%d false did {"command":"%d"}`, n, n) }
	paused := anthropictest.Say("searching")
	paused.Reply.StopReason = "pause_turn"
	last := anthropictest.Say("ten")
	last.Expect = func(q *anthropictest.Request) error {
		var said []string
		for _, m := range q.Messages {
			said = append(said, m.Role+" "+m.Text())
		}
		want := "user one|assistant |user |assistant two|user |assistant |user |assistant four|user five|assistant searching|" +
			"assistant six|user |assistant |user |assistant eight|user nine|assistant |user "
		if diff := cmp.Diff(want, strings.Join(said, "|")); diff != "" {
			return errors.New(diff)
		}
		if c := q.Messages[1].Content[0]; c.Type != "thinking" || c.Signature != "sig" || c.Thinking != "hm" {
			return fmt.Errorf("the thinking came back as %+v", c)
		}
		return nil
	}
	g := newRig(t,
		use(anthropictest.Thinking("sig", "hm"), bash(1), bash(2), bash(3)),
		results(use(anthropictest.Text("two"), bash(4)), did(1), did(2), did(3)),
		results(use(bash(5), bash(6)), did(4)),
		results(anthropictest.Say("four"), did(5), did(6)),
		paused,
		use(anthropictest.Text("six"), bash(7)),
		results(use(bash(8)), did(7)),
		results(anthropictest.Say("eight"), did(8)),
		use(bash(9)),
		last,
	)
	g.ok("one")
	g.ok("five")
	later := newRigOver(t, g.homeDir, g.server)
	o := later.ok("nine")
	if o.result.Content != "ten" || len(g.tools.calls)+len(later.tools.calls) != 9 {
		t.Errorf("%q after %d and %d calls", o.result.Content, len(g.tools.calls), len(later.tools.calls))
	}
}

func TestCancelInTheMiddleOfAnAnswer(t *testing.T) {
	held := anthropictest.Say("half of", " an answer")
	held.Reply.Fault.Hold = t.Context().Done() // never, while the test goes on
	next := anthropictest.Say("more")
	next.Expect = func(q *anthropictest.Request) error {
		if len(q.Messages) != 3 || q.Messages[1].Text() != "half of an answer" || q.Last().Text() != "go on" {
			return fmt.Errorf("%+v", q.Messages)
		}
		return nil
	}
	g := newRig(t, held, next)
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("the user pressed stop")
	o := g.run(ctx, "hi", func(r *agent.Run) {
		emit := r.Emit
		r.Emit = func(ctx context.Context, kind protocol.EventType, data any) error {
			if d, ok := data.(protocol.TextDelta); ok && d.Text == " an answer" {
				cancel(why)
			}
			return emit(ctx, kind, data)
		}
	})
	if !errors.Is(o.err, why) || g.tools.closed != 1 {
		t.Errorf("%v; tools closed %d times", o.err, g.tools.closed)
	}
	g.ok("go on")
}

func TestCancelWhileToolsRun(t *testing.T) {
	g := newRig(t, use(anthropictest.ToolUse("t1", "bash", `{}`)),
		expect(anthropictest.Say("ok"), func(last anthropictest.Message) error {
			if last.Text() != "what happened?" {
				return fmt.Errorf("%+v", last)
			}
			return nil
		}))
	ctx, cancel := context.WithCancel(t.Context())
	g.tools.does["bash"] = func(ctx context.Context, _ tool.Call, _ func(tool.Stream, string) error) tool.Result {
		cancel()
		<-ctx.Done()
		return failed("stopped")
	}
	o := g.run(ctx, "hi")
	if !errors.Is(o.err, context.Canceled) || !strings.HasSuffix(o.sorts(), "TOOL_CALL_RESULT") {
		t.Errorf("%v %s", o.err, o.sorts())
	}
	g.ok("what happened?")
	q := g.server.Requests()[1]
	if r := q.Messages[2].Results(); len(r) != 1 || r[0].ResultText() != "stopped" || !r[0].IsError {
		t.Errorf("%+v", q.Messages)
	}
}

// A worker that is killed leaves what is on disk at that moment, which the test
// copies while the model's second answer is under way.
func TestWorkerKilledBetweenTurns(t *testing.T) {
	held := anthropictest.Say("lost")
	held.Reply.Fault.Hold = t.Context().Done()
	first := newRig(t, use(anthropictest.ToolUse("t1", "bash", `{}`)), held)
	left := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	first.run(ctx, "hi", func(r *agent.Run) {
		r.Emit = func(_ context.Context, kind protocol.EventType, _ any) error {
			if kind == protocol.EventTextDelta {
				if err := os.CopyFS(left, os.DirFS(first.homeDir)); err != nil {
					t.Error(err)
				}
				cancel()
			}
			return nil
		}
	})
	next := anthropictest.Say("as I was saying")
	next.Expect = func(q *anthropictest.Request) error {
		if len(q.Messages) != 4 || q.Messages[2].Results()[0].ResultText() != "did {}" || q.Last().Text() != "go on" {
			return fmt.Errorf("%+v", q.Messages)
		}
		return nil
	}
	newRigOver(t, left, anthropictest.New(t, anthropictest.Options{Script: []anthropictest.Turn{next}})).ok("go on")
}

// The line that was torn is the one with the results: its calls are answered all
// the same, or the API would refuse the session for ever.
func TestTornTurnIsMadeGood(t *testing.T) {
	g := newRig(t, use(anthropictest.ToolUse("t1", "bash", `{}`)), anthropictest.Say("one"), anthropictest.Say("two"))
	g.ok("hi")
	file := filepath.Join(g.homeDir, "sessions", "s.jsonl")
	data, err := os.ReadFile(file)
	must(t, err)
	lines := strings.SplitAfter(string(data), "\n")
	must(t, os.WriteFile(file, []byte(lines[0]+lines[1]+lines[2][:20]), 0o600))
	newRigOver(t, g.homeDir, g.server).ok("again")
	q := g.server.Requests()[2]
	if r := q.Messages[2].Results(); len(q.Messages) != 4 || !strings.Contains(r[0].ResultText(), "Look before you do it again") {
		t.Errorf("%+v", q.Messages)
	}
}

func TestRunsOfASessionTakeTurns(t *testing.T) {
	g := newRig(t, use(anthropictest.ToolUse("t1", "bash", `{}`)), anthropictest.Say("one"), anthropictest.Say("two"))
	second := make(chan outcome, 1)
	g.tools.does["bash"] = func(context.Context, tool.Call, func(tool.Stream, string) error) tool.Result {
		go func() { second <- g.run(t.Context(), "second") }()
		return tool.Result{Content: "x"}
	}
	g.ok("first")
	if o := <-second; o.err != nil || o.result.Content != "two" {
		t.Fatalf("%+v", o)
	}
	if q := g.server.Requests()[2]; len(q.Messages) != 5 || q.Last().Text() != "second" {
		t.Errorf("%+v", q.Messages)
	}
}

func TestShellsDirectoryIsKept(t *testing.T) {
	g := newRig(t, use(anthropictest.ToolUse("t1", "bash", `{}`)), anthropictest.Say("one"), anthropictest.Say("two"))
	g.tools.does["bash"] = func(context.Context, tool.Call, func(tool.Stream, string) error) tool.Result {
		g.tools.dir = "/workspace/below"
		return tool.Result{}
	}
	g.ok("go there")
	later := newRigOver(t, g.homeDir, g.server)
	later.ok("where are you?")
	if later.tools.dir != "/workspace/below" {
		t.Errorf("the next run's tools begin in %q", later.tools.dir)
	}
}

func TestUnknownSessionNamesAreRefused(t *testing.T) {
	g := newRig(t)
	o := g.run(t.Context(), "hi", func(r *agent.Run) { r.SessionID = "../other" })
	if protocol.CodeOf(o.err) != protocol.CodeInvalidRequest || len(o.events) != 0 {
		t.Errorf("%v %v", o.err, o.events)
	}
}

// What the API refuses at once is not in the transcript, where it would make every
// later run fail as well.
func TestRefusedMessageIsForgotten(t *testing.T) {
	g := newRig(t, anthropictest.Fail(400, "invalid_request_error", "messages.0: Could not process image", ""), anthropictest.Say("ok"))
	if o := g.run(t.Context(), "hi"); protocol.CodeOf(o.err) != protocol.CodeAgentError || !strings.Contains(o.err.Error(), "Could not process image") {
		t.Errorf("%v", o.err)
	}
	if _, err := os.Stat(filepath.Join(g.homeDir, "sessions")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
	g.ok("hi again")
}

func TestLongConversationIsSummedUp(t *testing.T) {
	full := use(anthropictest.Text("Working."), anthropictest.ToolUse("t2", "bash", `{}`))
	full.Reply.Usage = anthropictest.Usage{InputTokens: 50, CacheReadInputTokens: 700, CacheCreationInputTokens: 50, OutputTokens: 100}
	summing := anthropictest.Say(" They ", "want X. ")
	summing.Expect = func(q *anthropictest.Request) error {
		if len(q.Messages) != 4 || q.Last().Text() != summaryRequest || len(q.Tools) != 2 || !strings.Contains(string(q.Body), `"tool_choice":{"type":"none"}`) {
			return fmt.Errorf("%+v", q.Messages)
		}
		return nil
	}
	after := results(anthropictest.Say("Done."), "t2 false did {}")
	then := after.Expect
	after.Expect = func(q *anthropictest.Request) error {
		if len(q.Messages) != 3 || !strings.HasSuffix(q.Messages[0].Text(), "\n\nThey want X.") {
			return fmt.Errorf("%+v", q.Messages)
		}
		return then(q)
	}
	later := anthropictest.Say("Yes.")
	later.Expect = func(q *anthropictest.Request) error {
		if len(q.Messages) != 5 || !strings.HasSuffix(q.Messages[0].Text(), "\n\nThey want X.") {
			return fmt.Errorf("%+v", q.Messages)
		}
		return nil
	}
	g := newRig(t, use(anthropictest.ToolUse("t1", "bash", `{}`)), full, summing, after, later)
	g.options.Window = 1000
	o := g.ok("do X", func(r *agent.Run) { r.Config.MaxTokens = 100 })
	if o.told(protocol.EventTextDelta) != "Working.Done." || o.result.Content != "Done." || o.result.Usage.OutputTokens != 10+100+10+10 {
		t.Errorf("%q %+v", o.told(protocol.EventTextDelta), o.result)
	}
	lines, err := session.Read(g.options.Home, "s")
	if err != nil || len(lines) != 7 {
		t.Fatalf("%v %s", err, lines)
	}
	var l session.Line
	if err := json.Unmarshal(lines[5], &l); err != nil || l.Summary != "They want X." || l.Replaces != 3 {
		t.Errorf("%v %s", err, lines[5])
	}
	next := newRigOver(t, g.homeDir, g.server)
	next.ok("really?")
}

func TestConversationThatTheAPIFindsTooLong(t *testing.T) {
	tooLong := anthropictest.Fail(400, "invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum", "")
	g := newRig(t, anthropictest.Say("one"), tooLong, anthropictest.Say("a summary"), anthropictest.Say("two"), tooLong)
	g.ok("first")
	if o := g.ok("second"); o.result.Content != "two" {
		t.Errorf("%+v", o.result)
	}
	o := g.run(t.Context(), "third, a very long one", func(r *agent.Run) { r.SessionID = "new" })
	if protocol.CodeOf(o.err) != protocol.CodeTooLarge {
		t.Errorf("%v", o.err)
	}
}
