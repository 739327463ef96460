package anthropictest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const question = `{"model":"m","max_tokens":9,"stream":%t,"messages":[{"role":"user","content":[{"type":"text","text":"hello"}]}]}`

func TestAnswerInOnePiece(t *testing.T) {
	s := New(t, Options{Script: []Turn{{
		Expect: func(q *Request) error {
			if got := q.Last().Text(); got != "hello" {
				return fmt.Errorf("asked %q", got)
			}
			return nil
		},
		Reply: Reply{Blocks: []Block{Text("one ", "two"), ToolUse("toolu_1", "bash", `{"command":`, `"ls"}`)}},
	}}})
	status, body := post(t, s, fmt.Sprintf(question, false))
	want := `{"content":[{"text":"one two","type":"text"},{"id":"toolu_1","input":{"command":"ls"},"name":"bash","type":"tool_use"}],` +
		`"id":"msg_01Scripted","model":"m","role":"assistant","stop_reason":"tool_use","stop_sequence":null,"type":"message",` +
		`"usage":{"input_tokens":100,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":10}}` + "\n"
	if diff := cmp.Diff(want, body); status != http.StatusOK || diff != "" {
		t.Errorf("%d\n%s", status, diff)
	}
}

// The events and their order are those of the API's documentation of streaming.
func TestAnswerAsAStream(t *testing.T) {
	reply := Reply{Blocks: []Block{Thinking("sig", "hm"), Text("hi"), ToolUse("toolu_1", "bash", `{}`)}, Fault: Fault{Bytewise: true}}
	s := New(t, Options{Script: []Turn{{Reply: reply}}})
	_, body := post(t, s, fmt.Sprintf(question, true))
	var kinds []string
	for frame := range strings.SplitSeq(strings.TrimSuffix(body, "\n\n"), "\n\n") {
		kind, data, ok := strings.Cut(frame, "\ndata: ")
		if !ok || !strings.Contains(data, fmt.Sprintf(`"type":%q`, strings.TrimPrefix(kind, "event: "))) {
			t.Fatalf("a frame without its type: %q", frame)
		}
		kinds = append(kinds, strings.TrimPrefix(kind, "event: "))
	}
	want := []string{
		"message_start",
		"content_block_start", "content_block_delta", "content_block_delta", "content_block_stop",
		"content_block_start", "content_block_delta", "content_block_stop",
		"content_block_start", "content_block_delta", "content_block_stop",
		"message_delta", "message_stop",
	}
	if diff := cmp.Diff(want, kinds); diff != "" {
		t.Error(diff)
	}
}

func TestWhatTheAPIRefusesIsRefused(t *testing.T) {
	s := New(t, Options{Otherwise: func(*Request) Reply { return Say("ok").Reply }})
	with := func(messages string) string {
		return `{"model":"m","max_tokens":9,"messages":[{"role":"user","content":[{"type":"text","text":"hello"}]},` + messages + `]}`
	}
	use := func(id string) string {
		return `{"role":"assistant","content":[{"type":"tool_use","id":"` + id + `","name":"bash","input":{}}]}`
	}
	result := func(id string) string {
		return `{"role":"user","content":[{"type":"tool_result","tool_use_id":"` + id + `","content":"x"}]}`
	}
	for _, test := range []struct{ name, body, want string }{
		{"good", with(use("a") + "," + result("a")), `"type":"message"`},
		{"no JSON", `{`, "not valid JSON"},
		{"no model", `{"max_tokens":9}`, "Field required"},
		{"call without result", with(use("a")), "without `tool_result` blocks immediately after: a"},
		{"result later", with(use("a") + `,{"role":"user","content":[{"type":"text","text":"x"}]},` + result("a")), "immediately after: a"},
		{"result of no call", with(result("a")), "unexpected `tool_use_id`"},
		{"input that is no object", with(`{"role":"assistant","content":[{"type":"tool_use","id":"a","name":"b","input":"x"}]}`), "valid dictionary"},
		{"empty text", with(`{"role":"user","content":[{"type":"text","text":""}]}`), "must be non-empty"},
		{"unknown block", with(`{"role":"user","content":[{"type":"carrel"}]}`), "Input tag 'carrel'"},
		{"thinking without signature", with(`{"role":"assistant","content":[{"type":"thinking","thinking":"x"}]}`), "signature"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if _, body := post(t, s, test.body); !strings.Contains(body, test.want) {
				t.Errorf("answered %s, want %q in it", body, test.want)
			}
		})
	}
}

func TestFaultsOfAnAnswer(t *testing.T) {
	after := RateLimited(3)
	s := New(t, Options{Key: "right", Script: []Turn{after, {Reply: Reply{Blocks: []Block{Text("a", "b")}, Fault: Fault{CutAfter: 3}}}}})
	status, body := post(t, s, fmt.Sprintf(question, true))
	if status != http.StatusTooManyRequests || !strings.Contains(body, `"type":"rate_limit_error"`) {
		t.Errorf("%d %s", status, body)
	}
	request := newRequest(t, s, fmt.Sprintf(question, true))
	response, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	got, err := io.ReadAll(response.Body)
	if !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(string(got), `"text":"a"`) || strings.Contains(string(got), `"text":"b"`) {
		t.Errorf("cut after the first delta: %v\n%s", err, got)
	}
}

func newRequest(t *testing.T, s *Server, body string) *http.Request {
	t.Helper()
	q, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+"/v1/messages", bytes.NewBufferString(body))
	if err != nil {
		t.Fatal(err)
	}
	q.Header.Set("Anthropic-Version", "2023-06-01")
	q.Header.Set("X-Api-Key", "right")
	return q
}

func post(t *testing.T, s *Server, body string) (status int, answer string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(newRequest(t, s, body))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	got, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(got)
}
