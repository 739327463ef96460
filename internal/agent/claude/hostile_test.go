package claude

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"carrel/internal/agent"
	"carrel/internal/anthropictest"
	"carrel/internal/tool"
	"carrel/protocol"
)

// What makes no sense in a call is told to the model, which goes on.
func TestCallsThatMakeNoSenseAreAnswered(t *testing.T) {
	huge := `{"content":"` + strings.Repeat("<", 10<<20) + `"}`
	pieces := make([]string, 0, 1024)
	for rest := huge; rest != ""; {
		n := min(10<<10, len(rest))
		pieces, rest = append(pieces, rest[:n]), rest[n:]
	}
	for _, test := range []struct {
		name, want string
		call       anthropictest.Block
	}{
		{"10 MiB in one piece", "longer than the 1048576 bytes", anthropictest.ToolUse("t1", "bash", huge)},
		{"10 MiB in many pieces", "longer than the 1048576 bytes", anthropictest.ToolUse("t1", "bash", pieces...)},
		{"no JSON", `is no JSON object (invalid character 'r' looking for beginning of value). It began: rm -rf /`, anthropictest.ToolUse("t1", "bash", "rm -rf /")},
		{"half of a JSON", "is no JSON object (unexpected end of JSON input)", anthropictest.ToolUse("t1", "bash", `{"command":`)},
		{"no object", "is no JSON object", anthropictest.ToolUse("t1", "bash", `null`)},
		{"bad UTF-8", "is no JSON object", anthropictest.ToolUse("t1", "bash", "\xff\xfe")},
		{"unknown tool", `There is no tool "launch". There are: bash, read.`, anthropictest.ToolUse("t1", "launch", `{}`)},
		{"tool of no possible name", `There is no tool "invalid_name".`, anthropictest.ToolUse("t1", "../../"+strings.Repeat("x", 5000), `{}`)},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := newRig(t, use(test.call), expect(anthropictest.Say("sorry"), func(last anthropictest.Message) error {
				r := last.Results()
				if len(r) != 1 || !r[0].IsError || !strings.Contains(r[0].ResultText(), test.want) || len(r[0].ResultText()) > 1000 {
					return fmt.Errorf("%+v", last)
				}
				return nil
			}))
			o := g.ok("hi")
			if len(g.tools.calls) != 0 || o.result.Content != "sorry" {
				t.Errorf("%v %+v", g.tools.calls, o.result)
			}
			if told := len(o.told(protocol.EventToolCallArgs)); told > maxInputBytes {
				t.Errorf("%d bytes of input were shown", told)
			}
		})
	}
}

func TestEndlessCallsEnd(t *testing.T) {
	n := 0
	server := anthropictest.New(t, anthropictest.Options{Otherwise: func(*anthropictest.Request) anthropictest.Reply {
		n++
		return use(anthropictest.ToolUse(fmt.Sprint("t", n), "bash", `{}`)).Reply
	}})
	g := newRigOver(t, t.TempDir(), server)
	o := g.ok("hi")
	if o.result.StopReason != stopMaxTurns || len(server.Requests()) != DefaultMaxTurns || len(g.tools.calls) != DefaultMaxTurns-1 {
		t.Errorf("%s after %d answers and %d calls", o.result.StopReason, len(server.Requests()), len(g.tools.calls))
	}
}

// Two hundred calls in one answer, of which each prints 300 KiB: they come in
// order, what is too many is said so, and result and events stay lines.
func TestManyCallsWithMuchOutput(t *testing.T) {
	var calls []anthropictest.Block
	for i := range 200 {
		calls = append(calls, anthropictest.ToolUse(fmt.Sprint("t", i), "bash", `{"text":"`+strings.Repeat("<", 15_000)+`"}`))
	}
	g := newRig(t, use(calls...), expect(anthropictest.Say("ok"), func(last anthropictest.Message) error {
		size := 0
		for i, r := range last.Results() {
			if r.ToolUseID != fmt.Sprint("t", i) || r.IsError != (i >= maxCalls) {
				return fmt.Errorf("result %d is %s, error %t", i, r.ToolUseID, r.IsError)
			}
			size += len(r.ResultText())
		}
		if len(last.Results()) != 200 || size > maxResultsBytes+200*60 {
			return fmt.Errorf("%d results of %d bytes", len(last.Results()), size)
		}
		return nil
	}))
	g.tools.does["bash"] = func(_ context.Context, _ tool.Call, output func(tool.Stream, string) error) tool.Result {
		if err := output(tool.Stdout, strings.Repeat("y", 300<<10)); err != nil {
			t.Error(err)
		}
		return tool.Result{Content: strings.Repeat("\x00", 100<<10)}
	}
	o := g.ok("hi")
	if len(g.tools.calls) != maxCalls || len(o.result.ToolCalls)+o.result.ToolCallsLeftOut != 200 || o.result.ToolCallsLeftOut == 0 {
		t.Errorf("%d done, %d told, %d left out", len(g.tools.calls), len(o.result.ToolCalls), o.result.ToolCallsLeftOut)
	}
	if shown := len(o.told(protocol.EventToolOutput)); shown > maxShownBytes+100*maxParallel {
		t.Errorf("%d bytes were shown", shown)
	}
}

func TestAnswersThatMakeNoSenseEndTheRun(t *testing.T) {
	long := make([]string, 5)
	for i := range long {
		long[i] = strings.Repeat("x", 1<<20)
	}
	twice := anthropictest.ToolUse("t1", "bash", `{}`)
	many := make([]anthropictest.Block, maxBlocks+1)
	for i := range many {
		many[i] = anthropictest.Text("")
	}
	for _, test := range []struct {
		name, want string
		turn       anthropictest.Turn
	}{
		{"5 MiB of text", "longer than 4194304 bytes", anthropictest.Say(long...)},
		{"an event of 33 MiB", "token too long", use(anthropictest.ToolUse("t1", "bash", strings.Repeat("x", 33<<20)))},
		{"one id twice", "two tool calls with the id t1", use(twice, twice)},
		{"no id", "an id of 0 bytes", use(anthropictest.ToolUse("", "bash", `{}`))},
		{"blocks without end", "more than 1024 content blocks", use(many...)},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := newRig(t, test.turn)
			o := g.run(t.Context(), "hi")
			if protocol.CodeOf(o.err) != protocol.CodeAgentError || !strings.Contains(o.err.Error(), test.want) || len(g.tools.calls) != 0 {
				t.Errorf("%v", o.err)
			}
		})
	}
}

func TestLongAnswerIsShortenedInTheResult(t *testing.T) {
	text := strings.Repeat("<&>\x01", 128<<10)
	o := newRig(t, anthropictest.Say(text)).ok("hi")
	if !o.result.Truncated || o.result.ContentBytes != int64(len(text)) || o.told(protocol.EventTextDelta) != text {
		t.Errorf("%t %d", o.result.Truncated, o.result.ContentBytes)
	}
}

// A host that takes no more events ends the run, and it is not taken for a fault
// of the API that another request might mend.
func TestHostThatIsGone(t *testing.T) {
	gone := errors.New("the connection is closed")
	for _, kind := range []protocol.EventType{protocol.EventTextDelta, protocol.EventToolCallStart, protocol.EventUsage, protocol.EventToolCallResult} {
		g := newRig(t, use(anthropictest.Text("a"), anthropictest.ToolUse("t1", "bash", `{}`)))
		o := g.run(t.Context(), "hi", func(r *agent.Run) {
			r.Emit = func(_ context.Context, k protocol.EventType, _ any) error {
				if k == kind {
					return gone
				}
				return nil
			}
		})
		if !errors.Is(o.err, gone) || len(g.waits) != 0 {
			t.Errorf("%s: %v after %v", kind, o.err, g.waits)
		}
	}
}

func TestToolNamesTheAPITakes(t *testing.T) {
	for name, want := range map[string]bool{
		"bash": true, "mcp__x-Y_9": true, strings.Repeat("x", 128): true,
		"": false, strings.Repeat("x", 129): false, "a b": false, "a.b": false, "é": false, "@": false, "[": false, "\x00": false, "{": false,
	} {
		if validName(name) != want {
			t.Errorf("%.20q: %t", name, !want)
		}
	}
}

func FuzzBlocks(f *testing.F) {
	f.Add("bash", `{"a":1}`, "text")
	f.Add("", "{", "\xff")
	f.Fuzz(func(t *testing.T, name, input, text string) {
		a := &answer{}
		if a.open(0, &block{kind: "tool_use", id: "t1", name: name}) != nil {
			return
		}
		a.addInput(a.blocks[0], input)
		if err := errors.Join(a.open(1, &block{kind: "text"}), a.addText(a.blocks[min(1, len(a.blocks)-1)], text)); err != nil {
			return
		}
		for _, raw := range a.content() {
			if !json.Valid(raw) {
				t.Fatalf("no JSON: %q", raw)
			}
			// What the transcript keeps says what the model said.
			var kept struct{ Type, Text, Name, ID string }
			if err := json.Unmarshal(raw, &kept); err != nil {
				t.Fatal(err)
			}
			if kept.Type == "text" && utf8.ValidString(text) && kept.Text != text {
				t.Errorf("the text %q became %q", text, kept.Text)
			}
			if kept.Type == "tool_use" && (validName(name) && kept.Name != name || kept.ID != "t1") {
				t.Errorf("the call of %q became %+v", name, kept)
			}
		}
		if c := a.calls()[0]; c.fault() == "" && !json.Valid(c.whole()) {
			t.Fatalf("input %q passed", c.whole())
		}
	})
}
