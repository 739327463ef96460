package agui

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"carrel/protocol"
)

// input is a RunAgentInput with these members besides, or instead.
func input(t *testing.T, members map[string]any) []byte {
	t.Helper()
	m := map[string]any{
		"threadId": "t", "runId": "r", "tools": []any{}, "context": []any{}, "state": map[string]any{}, "forwardedProps": map[string]any{},
		"messages": []any{map[string]any{"id": "1", "role": "user", "content": "hi"}},
	}
	maps.Copy(m, members)
	body, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func TestInputIsReadAsTheClientMeansIt(t *testing.T) {
	in, err := ReadInput([]byte(`{"threadId":"t","runId":"r","protocolVersion":"1.0","new":{"in":"1.1"},
		"messages":[{"id":"1","role":"user","content":"old"},{"id":"2","role":"assistant"},
			{"id":"3","role":"user","content":[{"type":"text","text":"a"},{"type":"image","source":{"type":"data","value":"AAAA","mimeType":"image/png"}},
				{"type":"document","source":{"type":"file","provider":"carrel","value":"file_1","mimeType":"application/pdf"}},{"type":"text","text":"b"}]},
			{"id":"4","role":"assistant","content":"so far"}],
		"tools":[{"name":"x","description":""}],"context":[],"state":{"a":1},
		"forwardedProps":{"other":1,"carrel":{"config":{"model":"m"}}},
		"resume":[{"interruptId":"run_1.apr_1","status":"resolved","payload":{"approved":true}},
			{"interruptId":"run_1.apr.2","status":"resolved","payload":{"decision":"deny","reason":"no"},"metadata":{}},
			{"interruptId":"x","status":"cancelled"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	if in.ThreadID != "t" || in.RunID != "r" || in.IsLast || string(in.Carrel) != `{"config":{"model":"m"}}` {
		t.Errorf("it is %+v", in)
	}
	if in.Message.Text != "ab" || len(in.Message.UpToHere) != 3 || !cmp.Equal(in.Message.Attachments, []protocol.Attachment{{ID: "file_1", Type: "application/pdf"}}) {
		t.Errorf("its message is %+v", in.Message)
	}
	if diff := cmp.Diff([]string{"messages[2].content[1]", "tools", "state"}, in.Ignored); diff != "" {
		t.Errorf("without effect: %s", diff)
	}
	want := []Answer{
		{"run_1.apr_1", protocol.ApprovalDecision{Decision: "allow"}, "run_1", "apr_1"},
		{"run_1.apr.2", protocol.ApprovalDecision{Decision: "deny", Reason: "no"}, "run_1", "apr.2"},
		{"x", protocol.ApprovalDecision{Decision: "deny", Reason: "the question was put aside without an answer"}, "", ""},
	}
	if diff := cmp.Diff(want, in.Resume); diff != "" {
		t.Errorf("the answers: %s", diff)
	}
}

func TestMalformedInputIsRefusedWithTheFieldsName(t *testing.T) {
	resume := func(entry string) map[string]any { return map[string]any{"resume": json.RawMessage("[" + entry + "]")} }
	payload := func(p string) map[string]any {
		return resume(`{"interruptId":"a.b","status":"resolved","payload":` + p + `}`)
	}
	messages := func(list string) map[string]any { return map[string]any{"messages": json.RawMessage(list)} }
	for _, tt := range []struct {
		want    string
		members map[string]any
	}{
		{"threadId", map[string]any{"threadId": 5}},
		{"threadId", map[string]any{"threadId": "a/b"}},
		{"threadId", map[string]any{"threadId": ".."}},
		{"threadId", map[string]any{"threadId": nil}},
		{"runId", map[string]any{"runId": ""}},
		{"runId", map[string]any{"runId": "a\nb"}},
		{"runId", map[string]any{"runId": strings.Repeat("x", 257)}},
		{"messages: must be an array", messages(`{}`)},
		{"messages: must be an array", messages(`null`)},
		{"messages[0]: must be a JSON object", messages(`[1]`)},
		{"messages[1]: must have an id", messages(`[{"id":"1","role":"tool"},{"id":2,"role":"user"}]`)},
		{"messages[0].content: must be a text", messages(`[{"id":"1","role":"user"}]`)},
		{"messages[0].content: must be a text", messages(`[{"id":"1","role":"user","content":null}]`)},
		{"messages[0].content: must be a text", messages(`[{"id":"1","role":"user","content":5}]`)},
		{"messages[0].content[0].text", messages(`[{"id":"1","role":"user","content":[{"type":"text"}]}]`)},
		{"tools: must be an array", map[string]any{"tools": "x"}},
		{"context: must be an array", map[string]any{"context": map[string]any{}}},
		{"resume: must be an array", map[string]any{"resume": "x"}},
		{"resume[0].interruptId", resume(`{"status":"cancelled"}`)},
		{"resume[0].status", resume(`{"interruptId":"a"}`)},
		{"resume[0].status", resume(`{"interruptId":"a","status":"Resolved"}`)},
		{"resume[1]: answers an interrupt that another", resume(`{"interruptId":"a","status":"cancelled"},{"interruptId":"a","status":"cancelled"}`)},
		{"resume[0].payload: must be a JSON object", payload(`true`)},
		{"resume[0].payload: must be a JSON object", resume(`{"interruptId":"a","status":"resolved"}`)},
		{"resume[0].payload: must have either", payload(`{}`)},
		{"resume[0].payload: must have either", payload(`{"approved":true,"decision":"deny"}`)},
		{"resume[0].payload: must have either", payload(`{"approved":null}`)},
		{"resume[0].payload: approved must be", payload(`{"approved":"true"}`)},
		{"resume[0].payload: \"Approved\" is not known", payload(`{"Approved":true}`)},
		{"resume[0].payload: \"editedArgs\" is not known", payload(`{"approved":true,"editedArgs":{}}`)},
		{"resume[0].payload: \"approved\" is given twice", payload(`{"approved":false,"approved":true}`)},
		{"resume[0].payload.decision", payload(`{"decision":"maybe"}`)},
	} {
		t.Run(tt.want, func(t *testing.T) {
			_, err := ReadInput(input(t, tt.members))
			if protocol.CodeOf(err) != protocol.CodeInvalidRequest || !strings.Contains(fmt.Sprint(err), tt.want) {
				t.Errorf("the error is %v", err)
			}
		})
	}
	for _, body := range []string{"", "[]", `{"threadId":"t"`, `{"a":1,"a":2}`, `{} {}`} {
		if _, err := ReadInput([]byte(body)); protocol.CodeOf(err) != protocol.CodeInvalidRequest {
			t.Errorf("%q: %v", body, err)
		}
	}
}

func TestInputIsBounded(t *testing.T) {
	for name, one := range map[string]string{"messages": `{"id":"1","role":"tool"}`, "resume": `{"interruptId":"a","status":"cancelled"}`} {
		list := "[" + strings.TrimSuffix(strings.Repeat(one+",", maxMessages+1), ",") + "]"
		_, err := ReadInput(input(t, map[string]any{name: json.RawMessage(list)}))
		if protocol.CodeOf(err) != protocol.CodeTooLarge || !strings.Contains(fmt.Sprint(err), name) {
			t.Errorf("%d of %s: %v", maxMessages+1, name, err)
		}
	}
}

func TestKeyIsTheMessagesPlaceAndText(t *testing.T) {
	key := func(thread, list string) string {
		t.Helper()
		in, err := ReadInput(input(t, map[string]any{"threadId": thread, "messages": json.RawMessage(list)}))
		if err != nil {
			t.Fatal(err)
		}
		return in.Key("u")
	}
	if in, err := ReadInput(input(t, nil)); err != nil || in.Key("u") == in.Key("v") {
		t.Errorf("two users have one key: %v", err)
	}
	const one = `[{"id":"1","role":"user","content":"yes"}]`
	again := key("t", one)
	for _, tt := range []struct {
		name         string
		thread, list string
		same         bool
	}{
		{"the same", "t", one, true},
		{"with the answer so far", "t", `[{"id":"1","role":"user","content":"yes"},{"id":"9","role":"assistant","content":"well"}]`, true},
		{"in another thread", "u", one, false},
		{"another text", "t", `[{"id":"1","role":"user","content":"no"}]`, false},
		{"later", "t", `[{"id":"1","role":"user","content":"yes"},{"id":"1","role":"user","content":"yes"}]`, false},
		{"with a file", "t", `[{"id":"1","role":"user","content":[{"type":"text","text":"yes"},{"type":"image","source":{"type":"file","provider":"carrel","value":"file_1"}}]}]`, false},
	} {
		if got := key(tt.thread, tt.list); (got == again) != tt.same {
			t.Errorf("%s: %s and %s", tt.name, got, again)
		}
	}
}
