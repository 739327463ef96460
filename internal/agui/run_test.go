package agui

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"carrel/protocol"
)

const ours = "run_1"

// record is a run of ours, as the store has it.
type record []protocol.Event

func (r *record) add(kind protocol.EventType, data any) *record {
	raw, err := json.Marshal(data)
	if err != nil {
		panic(err)
	}
	*r = append(*r, protocol.Event{RunID: ours, Seq: int64(len(*r) + 1), Time: time.UnixMilli(1000), Type: kind, Data: raw})
	return r
}

var expires = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func question1(id, callID string) protocol.ApprovalRequested {
	return protocol.ApprovalRequested{
		ApprovalID: id, ToolCallID: callID, Tool: "bash", Input: json.RawMessage(`{"command":"rm"}`), Reason: "a rule", ExpiresAt: expires,
	}
}

// conversation thinks, speaks, calls a tool, asks twice at once, and ends.
func conversation() record {
	var r record
	r.add(protocol.EventRunStarted, protocol.RunStarted{SessionID: "s", Agent: "claude"}).
		add(protocol.EventThinkingDelta, protocol.ThinkingDelta{Text: "hm"}).
		add(protocol.EventTextDelta, protocol.TextDelta{Text: "I "}).
		add(protocol.EventTextDelta, protocol.TextDelta{Text: "will."}).
		add(protocol.EventToolCallStart, protocol.ToolCallStart{ID: "t1", Name: "bash"}).
		add(protocol.EventToolCallArgs, protocol.ToolCallArgs{ID: "t1", Delta: `{"command":`}).
		add(protocol.EventToolCallArgs, protocol.ToolCallArgs{ID: "t1", Delta: `"rm"}`}).
		add(protocol.EventToolCallStart, protocol.ToolCallStart{ID: "t2", Name: "bash"}).
		add(protocol.EventUsage, protocol.Usage{InputTokens: 10, OutputTokens: 5, CacheReadTokens: 3, CacheCreationTokens: 2}).
		add(protocol.EventApprovalRequested, question1("apr_1", "t1")).
		add(protocol.EventApprovalRequested, question1("apr_2", "t2")).
		add(protocol.EventApprovalResolved, protocol.ApprovalResolved{ApprovalID: "apr_2", Decision: "deny", Reason: "no"}).
		add(protocol.EventApprovalResolved, protocol.ApprovalResolved{ApprovalID: "apr_1", Decision: "allow"}).
		add(protocol.EventToolOutput, protocol.ToolOutput{ID: "t1", Stream: "stdout", Text: "removed\n"}).
		add(protocol.EventToolCallResult, protocol.ToolCallResult{ID: "t1", Name: "bash", Result: "removed"}).
		add(protocol.EventToolCallResult, protocol.ToolCallResult{ID: "t2", Name: "bash", Result: "", IsError: true}).
		add(protocol.EventTextDelta, protocol.TextDelta{Text: "Gone."}).
		add(protocol.EventUsage, protocol.Usage{InputTokens: 30, OutputTokens: 6, CacheReadTokens: 3, CacheCreationTokens: 2}).
		add(protocol.EventRunFinished, protocol.Result{
			RunID: ours, Content: "Gone.", Usage: protocol.Usage{InputTokens: 30, OutputTokens: 6, CacheReadTokens: 3, CacheCreationTokens: 2},
		})
	return r
}

func takeAll(r *Run, events []protocol.Event) (out []Event) {
	for _, ev := range events {
		out = append(out, r.Take(ev)...)
	}
	return out
}

const beforeTheQuestion = `data: {"type":"RUN_STARTED","threadId":"s","runId":"r1","protocolVersion":"1.0","metadata":{"carrel":{"run_id":"run_1","ignored":["tools"]}}}

data: {"type":"REASONING_START","messageId":"run_1-2"}

data: {"type":"REASONING_MESSAGE_START","messageId":"run_1-1","role":"reasoning"}

data: {"type":"REASONING_MESSAGE_CONTENT","messageId":"run_1-1","delta":"hm"}

data: {"type":"REASONING_MESSAGE_END","messageId":"run_1-1"}

data: {"type":"REASONING_END","messageId":"run_1-2"}

data: {"type":"TEXT_MESSAGE_START","messageId":"run_1-3","role":"assistant"}

data: {"type":"TEXT_MESSAGE_CONTENT","messageId":"run_1-3","delta":"I "}

data: {"type":"TEXT_MESSAGE_CONTENT","messageId":"run_1-3","delta":"will."}

data: {"type":"TEXT_MESSAGE_END","messageId":"run_1-3"}

data: {"type":"TOOL_CALL_START","toolCallId":"t1","toolCallName":"bash","parentMessageId":"run_1-3"}

data: {"type":"TOOL_CALL_ARGS","toolCallId":"t1","delta":"{\"command\":"}

data: {"type":"TOOL_CALL_ARGS","toolCallId":"t1","delta":"\"rm\"}"}

data: {"type":"TOOL_CALL_END","toolCallId":"t1"}

data: {"type":"TOOL_CALL_START","toolCallId":"t2","toolCallName":"bash","parentMessageId":"run_1-3"}

data: {"type":"TOOL_CALL_END","toolCallId":"t2"}`

const afterTheAnswer = `data: {"type":"CUSTOM","name":"carrel.approval_resolved","value":{"interruptId":"run_1.apr_2","decision":"deny","reason":"no"}}

data: {"type":"CUSTOM","name":"carrel.approval_resolved","value":{"interruptId":"run_1.apr_1","decision":"allow"}}

data: {"type":"CUSTOM","name":"carrel.tool_output","value":{"toolCallId":"t1","stream":"stdout","text":"removed\n"}}

data: {"type":"TOOL_CALL_RESULT","messageId":"run_1-4","role":"tool","toolCallId":"t1","content":"removed"}

data: {"type":"TOOL_CALL_RESULT","messageId":"run_1-5","role":"tool","toolCallId":"t2","content":"","metadata":{"carrel":{"is_error":true}}}

data: {"type":"TEXT_MESSAGE_START","messageId":"run_1-6","role":"assistant"}

data: {"type":"TEXT_MESSAGE_CONTENT","messageId":"run_1-6","delta":"Gone."}

data: {"type":"TEXT_MESSAGE_END","messageId":"run_1-6"}`

func TestRunStopsAtItsQuestionsAndGoesOnWhenTheyAreAnswered(t *testing.T) {
	all := conversation()
	first := NewRun("s", "r1", ours)
	out := append([]Event{first.Begin([]string{"tools"})}, takeAll(first, all[:11])...)
	if diff := cmp.Diff(beforeTheQuestion, wire(out)); diff != "" {
		t.Errorf("up to the questions:\n%s", diff)
	}
	if waits, _ := first.Waits(); !waits {
		t.Fatal("it does not wait")
	}
	if more := takeAll(first, all[11:12]); len(more) > 0 {
		t.Errorf("one of two is answered, and it shows %s", wire(more))
	}
	stop := first.Interrupt()
	if len(stop.Outcome.Interrupts) != 1 || stop.Outcome.Interrupts[0].ID != "run_1.apr_1" || !first.Ended() {
		t.Errorf("the interrupt is %s", wire([]Event{stop}))
	}
	if diff := cmp.Diff([]TokenUsage{{15, 5, 20, 3, 2}}, stop.Usage); diff != "" {
		t.Errorf("used up to there: %s", diff)
	}

	second := NewRun("s", "r2", ours)
	takeAll(second, all[:11])
	second.Resume([]string{"run_1.apr_1", "run_1.apr_2"})
	out = takeAll(second, all[11:])
	end := out[len(out)-1]
	if diff := cmp.Diff(afterTheAnswer, wire(out[:len(out)-1])); diff != "" {
		t.Errorf("after the answer:\n%s", diff)
	}
	if diff := cmp.Diff([]TokenUsage{{20, 1, 21, 0, 0}}, end.Usage); diff != "" {
		t.Errorf("used since: %s", diff)
	}
	if end.Type != RunFinished || end.Outcome.Type != Success || end.RunID != "r2" || !strings.Contains(string(end.Result), `"content":"Gone."`) {
		t.Errorf("the end is %s", wire([]Event{end}))
	}
}

func TestInterruptTellsWhatIsAskedAndHowToAnswer(t *testing.T) {
	r := NewRun("s", "r1", ours)
	takeAll(r, conversation()[:10])
	got := r.Interrupt().Outcome.Interrupts[0]
	if got.Reason != "tool_call" || got.ToolCallID != "t1" || got.ExpiresAt != "2026-01-02T03:04:05Z" || !strings.Contains(got.Message, `bash be used with {"command":"rm"}? (a rule)`) {
		t.Errorf("the interrupt is %+v", got)
	}
	if meta, _ := json.Marshal(got.Metadata); string(meta) != `{"carrel":{"run_id":"run_1","approval_id":"apr_1","tool":"bash","input":{"command":"rm"}}}` {
		t.Errorf("its metadata is %s", meta)
	}
	if !json.Valid(got.ResponseSchema) {
		t.Errorf("its schema is %s", got.ResponseSchema)
	}
	var none record
	none.add(protocol.EventApprovalRequested, question1("apr_1", "a call that never was"))
	takeAll(r, none)
	other := NewRun("s", "r1", ours)
	takeAll(other, none)
	if got := other.Interrupt().Outcome.Interrupts[0]; got.Reason != "confirmation" || got.ToolCallID != "" {
		t.Errorf("without a call it is %+v", got)
	}
}

func TestQuestionThatSomebodyElseAnswersStopsNothing(t *testing.T) {
	all := conversation()
	r := NewRun("s", "r1", ours)
	check := &rules{}
	if err := check.took(append([]Event{r.Begin(nil)}, takeAll(r, all)...)); err != nil {
		t.Error(err)
	}
	if outcome, _ := check.last["outcome"].(map[string]any); !r.Ended() || outcome["type"] != Success {
		t.Errorf("it ends with %v", check.last)
	}
}

// Answering one of two stops again at the other, and nothing is lost or told twice.
func TestQuestionThatIsNotAnsweredStopsAgain(t *testing.T) {
	all := conversation()
	var shown []Event
	first := NewRun("s", "r", ours)
	shown = append(shown, takeAll(first, all[:11])...)
	second := NewRun("s", "r", ours) // answers apr_2
	takeAll(second, all[:11])
	second.Resume([]string{"run_1.apr_2"})
	shown = append(shown, takeAll(second, all[11:12])...)
	stop := second.Interrupt()
	if len(stop.Outcome.Interrupts) != 1 || stop.Outcome.Interrupts[0].ID != "run_1.apr_1" {
		t.Fatalf("it stops with %s", wire([]Event{stop}))
	}
	third := NewRun("s", "r", ours) // answers apr_1, so it goes on from there
	takeAll(third, all[:10])
	third.Resume([]string{"run_1.apr_1"})
	shown = append(shown, takeAll(third, all[10:])...)
	want := takeAll(NewRun("s", "r", ours), all)
	shown[len(shown)-1].Usage = want[len(want)-1].Usage // each tells its own
	if diff := cmp.Diff(wire(want), wire(shown)); diff != "" {
		t.Errorf("in one run and in three:\n%s", diff)
	}
}

func TestEndingsKeepTheirMeaning(t *testing.T) {
	for _, tt := range []struct {
		name string
		code protocol.Code
		want string
	}{
		{"a failure", protocol.CodeAgentError, `data: {"type":"RUN_ERROR","message":"why","code":"agent_error","usage":[{"inputTokens":1,"outputTokens":0,"totalTokens":1,"cachedInputTokens":0,"cacheWriteInputTokens":0}]}`},
		{"canceled", protocol.CodeCanceled, `data: {"type":"RUN_FINISHED","threadId":"s","runId":"r","outcome":{"type":"cancelled"},"usage":[{"inputTokens":1,"outputTokens":0,"totalTokens":1,"cachedInputTokens":0,"cacheWriteInputTokens":0}]}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var rec record
			rec.add(protocol.EventTextDelta, protocol.TextDelta{Text: "half"}).
				add(protocol.EventRunError, protocol.RunError{Code: tt.code, Message: "why", Usage: &protocol.Usage{InputTokens: 1}})
			r := NewRun("s", "r", ours)
			out := takeAll(r, rec)
			if got := wire(out[len(out)-1:]); got != tt.want {
				t.Errorf("it ends with %s", got)
			}
			if out[len(out)-2].Type != TextMessageEnd {
				t.Errorf("the text is left open: %s", wire(out))
			}
		})
	}
}

// What a worker may make up is passed on as what it is, and breaks nothing.
func TestHostileEventsAreShownAsRaw(t *testing.T) {
	long := strings.Repeat("x", maxToolCallIDBytes+1)
	for _, tt := range []struct {
		name string
		kind protocol.EventType
		data string
	}{
		{"a type nobody knows", "NEW", `{"a":"\u2028"}`},
		{"data of another shape", protocol.EventTextDelta, `{"text":5}`},
		{"no JSON", protocol.EventTextDelta, "{\n\ndata: {}"},
		{"an empty call", protocol.EventToolCallStart, `{}`},
		{"a long id", protocol.EventToolCallStart, `{"id":"` + long + `"}`},
		{"arguments of no call", protocol.EventToolCallArgs, `{"id":"t","delta":"x"}`},
		{"output of no call", protocol.EventToolOutput, `{"id":"t"}`},
		{"a result with an empty id", protocol.EventToolCallResult, `{"result":"x"}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := NewRun("s", "r", ours)
			out := r.Take(protocol.Event{Type: tt.kind, Data: json.RawMessage(tt.data)})
			check := &rules{begun: true}
			if err := check.took(out); err != nil || len(out) != 1 || out[0].Type != Raw || out[0].Source != "carrel" {
				t.Errorf("%v: %s", err, wire(out))
			}
		})
	}
}

func TestCallsAreKnownUpToABound(t *testing.T) {
	r := NewRun("s", "r", ours)
	check := &rules{begun: true}
	for i := range maxCalls + 10 {
		var rec record
		rec.add(protocol.EventToolCallStart, protocol.ToolCallStart{ID: fmt.Sprint(i)}).
			add(protocol.EventToolCallArgs, protocol.ToolCallArgs{ID: "0", Delta: "x"})
		if err := check.took(takeAll(r, rec)); err != nil {
			t.Fatal(err)
		}
	}
	if len(r.calls) > maxCalls {
		t.Errorf("%d calls are kept", len(r.calls))
	}
}
