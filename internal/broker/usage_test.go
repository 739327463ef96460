package broker

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const wholeStream = "event: message_start\n" +
	`data: {"type":"message_start","message":{"id":"msg_1","model":"claude-opus-4-5-20251101","content":[],"usage":{"input_tokens":25,"cache_creation_input_tokens":300,"cache_creation":{"ephemeral_5m_input_tokens":100,"ephemeral_1h_input_tokens":200},"cache_read_input_tokens":4000,"output_tokens":1}}}` + "\n\n" +
	"event: content_block_start\n" +
	`data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}` + "\n\n" +
	"event: ping\ndata: {\"type\": \"ping\"}\n\n" +
	"event: content_block_delta\n" +
	`data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"\"usage\":{\"output_tokens\":99999}"}}` + "\n\n" +
	"event: message_delta\n" +
	`data: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":15}}` + "\n\n" +
	"event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n"

var wholeTokens = tokens{input: 25, output: 15, cacheRead: 4000, cacheCreate5m: 100, cacheCreate1h: 200}

const wholeObject = `{"id":"msg_1","content":[{"type":"text","text":"}\",\"usage\":{\"output_tokens\":1}"},{"usage":{"output_tokens":7},"model":"x"}],` +
	`"model": "claude-opus-4-5-20251101", "stop_reason":"end_turn",` +
	` "usage" : {"input_tokens":25,"cache_creation_input_tokens":300,"cache_creation":{"ephemeral_5m_input_tokens":100,"ephemeral_1h_input_tokens":200},"cache_read_input_tokens":4000,"output_tokens":15,"service_tier":"standard"}}` + "\n"

func readers() map[string]func() reader {
	return map[string]func() reader{
		"stream": func() reader { return &streamReader{} },
		"object": func() reader { return &objectReader{} },
	}
}

func TestFiguresAreFoundHoweverTheAnswerIsCutUp(t *testing.T) {
	texts := map[string]string{"stream": wholeStream, "object": wholeObject}
	want := figures{model: "claude-opus-4-5-20251101", tokens: wholeTokens, reported: true, final: true}
	for name, open := range readers() {
		for size := 1; size <= len(texts[name]); size += 1 + size/3 {
			r := open()
			for rest := texts[name]; rest != ""; {
				n := min(size, len(rest))
				r.read([]byte(rest[:n]))
				rest = rest[n:]
			}
			if diff := cmp.Diff(want, r.figures(), cmp.AllowUnexported(figures{}, tokens{})); diff != "" {
				t.Fatalf("%s in pieces of %d (-want +got):\n%s", name, size, diff)
			}
		}
	}
}

func TestLinesMayEndInCRLFAndHaveNoSpace(t *testing.T) {
	s := &streamReader{}
	s.read([]byte(strings.ReplaceAll(strings.ReplaceAll(wholeStream, "data: ", "data:"), "\n", "\r\n")))
	if s.figures().tokens != wholeTokens {
		t.Errorf("figures %+v", s.figures())
	}
}

func TestLaterFiguresReplaceEarlierOnes(t *testing.T) {
	s := &streamReader{}
	for _, u := range []string{
		`{"output_tokens":10}`,
		`{"output_tokens":20,"input_tokens":5,"cache_read_input_tokens":null}`,
		`{"output_tokens":30}`,
	} {
		s.read([]byte(`data: {"type":"message_delta","delta":{},"usage":` + u + "}\n"))
	}
	if got := s.figures().tokens; got != (tokens{input: 5, output: 30}) {
		t.Errorf("tokens %+v", got)
	}
}

func TestIterationsAreAddedUp(t *testing.T) {
	var u usage
	const text = `{"input_tokens":23,"output_tokens":10,"iterations":[
		{"type":"compaction","input_tokens":1800,"output_tokens":35},
		{"type":"message","input_tokens":23,"output_tokens":10,"cache_creation_input_tokens":7}]}`
	if err := json.Unmarshal([]byte(text), &u); err != nil {
		t.Fatal(err)
	}
	if got := u.onto(tokens{}); got != (tokens{input: 1823, output: 45, cacheCreate5m: 7}) {
		t.Errorf("tokens %+v", got)
	}
}

func TestFiguresOutOfReasonAreCut(t *testing.T) {
	o := &objectReader{}
	o.read([]byte(`{"model":"m","usage":{"input_tokens":-5,"output_tokens":9223372036854775807}}`))
	if got := o.figures().tokens; got != (tokens{output: maxTokens}) {
		t.Errorf("tokens %+v", got)
	}
	if cost := DefaultPrices().spending("?", tokens{maxTokens, maxTokens, maxTokens, maxTokens, maxTokens}).CostNanoUSD; cost <= 0 {
		t.Errorf("the cost overflows to %d", cost)
	}
}

// What a stream has sent is estimated until its figure comes, and the figure
// counts: who cuts a stream in time has not had it for nothing.
func TestOutputIsEstimatedUntilItsFigureComes(t *testing.T) {
	s := &streamReader{}
	before, after, _ := strings.Cut(wholeStream, "event: message_delta")
	s.read([]byte(before))
	for range 100 {
		s.read(fmt.Appendf(nil, "data: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":%q}}\n\n", strings.Repeat("word ", 6)))
	}
	// 30 characters each: some 8 tokens.
	if got := s.figures().tokens.output; got < 800 || got > 2000 {
		t.Errorf("estimate %d", got)
	}
	s.read([]byte("event: message_delta" + after))
	if got := s.figures().tokens.output; got != 15 {
		t.Errorf("output %d, the figure is 15", got)
	}
}

func TestLongLinesAreNotKept(t *testing.T) {
	s := &streamReader{}
	s.read([]byte(`data: {"type":"content_block_delta","delta":{"text":"`))
	for range 1000 {
		s.read(make([]byte, 4096))
	}
	if cap(s.line) > 2*maxLineBytes {
		t.Errorf("%d bytes of a line are kept", cap(s.line))
	}
	s.read([]byte("\"}}\n" + wholeStream))
	if got := s.figures().tokens; got != wholeTokens {
		t.Errorf("after a long line: %+v", got)
	}
	o := &objectReader{}
	o.read([]byte(`{"content":"`))
	for range 1000 {
		o.read([]byte(strings.Repeat("x", 4096)))
	}
	if cap(o.key)+cap(o.value) > 2*maxLineBytes {
		t.Errorf("%d bytes of an object are kept", cap(o.key)+cap(o.value))
	}
}

func FuzzFigures(f *testing.F) {
	f.Add([]byte(wholeStream), 7)
	f.Add([]byte(wholeObject), 3)
	f.Add([]byte(`{"usage":{"iterations":[{"iterations":[{}]}]},"model":1}`), 1)
	f.Add([]byte("data: {\"type\":\"error\"}\n"), 2)
	f.Fuzz(func(t *testing.T, text []byte, cut int) {
		for name, open := range readers() {
			whole, pieces := open(), open()
			whole.read(text)
			at := min(max(cut, 0), len(text))
			pieces.read(text[:at])
			pieces.read(text[at:])
			if whole.figures() != pieces.figures() {
				t.Errorf("%s: %+v at once, %+v in two", name, whole.figures(), pieces.figures())
			}
			got := whole.figures().tokens
			for _, n := range []int64{got.input, got.output, got.cacheRead, got.cacheCreate5m, got.cacheCreate1h} {
				if n < 0 || n > maxTokens {
					t.Errorf("%s: %d tokens", name, n)
				}
			}
		}
	})
}

// An object's figures must be those that a whole decoder finds.
func FuzzObjectAgreesWithDecoder(f *testing.F) {
	f.Add(wholeObject)
	f.Add(`{"usage":{"input_tokens":1},"usage":{"input_tokens":2}}`)
	f.Add(`{"a":[{"b":"]}"}],"model":"m"}`)
	f.Fuzz(func(t *testing.T, text string) {
		var members map[string]json.RawMessage
		if json.Unmarshal([]byte(text), &members) != nil {
			return
		}
		var u usage
		if len(members["usage"]) > maxLineBytes || json.Unmarshal(members["usage"], &u) != nil {
			return
		}
		o := &objectReader{}
		o.read([]byte(text))
		if !strings.Contains(text, `\u`) && o.figures().tokens != u.onto(tokens{}) {
			t.Errorf("%+v, the decoder has %+v", o.figures().tokens, u.onto(tokens{}))
		}
	})
}
