package pool

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"carrel/protocol"
)

// FuzzEventOf holds that eventOf takes what encoding/json takes, and refuses what that
// refuses, where members have their exact names.
func FuzzEventOf(f *testing.F) {
	for _, params := range []string{
		`{"run_id":"run_1","seq":3,"type":"TEXT_DELTA","data":{"text":"hi"}}`,
		` { "data" : [ 1 , {"a":null} ] , "seq" : -7 , "more" : {"seq":1} } `,
		`{"run_id":"r\u0075n\n","type":"A\"B","seq":null,"data":null}`,
		`{"run_id":null,"type":null}`, `{}`, ` {} x`, `{"seq":1,}`, `{"seq":1 "type":"A"}`, `[]`, `null`, ``, `{`, `{"seq"`, `{"seq":`,
		`{"seq":1.0}`, `{"seq":1e3}`, `{"seq":"1"}`, `{"seq":9223372036854775808}`, `{"seq":-0}`, `{"seq":true}`,
		`{"run_id":1}`, `{"run_id":{}}`, `{"type":["A"]}`, `{"data":"x","data":{}}`, `{"seq":1,"seq":2}`, `{"run_id":"\ud800"}`,
		`{"data":` + strings.Repeat("[", 200) + strings.Repeat("]", 200) + `}`,
	} {
		f.Add([]byte(params))
	}
	f.Fuzz(func(t *testing.T, params []byte) {
		if !utf8.Valid(params) || hasNameInOtherCase(params) {
			return // jsonrpc lets no such line through; and other names are no names
		}
		if c := strings.TrimLeft(string(params), " \t\r\n"); c == "" || c[0] != '{' && !strings.HasPrefix(c, "[") {
			if _, err := eventOf(params); err == nil {
				t.Errorf("%q is an event", params)
			}
			return // encoding/json takes null for an empty object
		}
		var want protocol.EventParams
		wantErr := json.Unmarshal(params, &want)
		got, err := eventOf(params)
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("%q: %v, encoding/json: %v", params, err, wantErr)
		}
		if diff := cmp.Diff(want, got); err == nil && diff != "" {
			t.Errorf("%q: %s", params, diff)
		}
	})
}

func hasNameInOtherCase(params []byte) bool {
	var members map[string]json.RawMessage
	if json.Unmarshal(params, &members) != nil {
		return false
	}
	for name := range members {
		for _, known := range []string{"run_id", "seq", "type", "data"} {
			if name != known && strings.EqualFold(name, known) {
				return true
			}
		}
	}
	return false
}

func BenchmarkEventOf(b *testing.B) {
	params := json.RawMessage(`{"run_id":"run_01M86G4TZRX5GR486M4H3BK30M","seq":1234,"type":"TEXT_DELTA","data":{"text":"word word word word"}}`)
	b.Run("eventOf", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := eventOf(params); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("encoding/json", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var ev protocol.EventParams
			if err := json.Unmarshal(params, &ev); err != nil {
				b.Fatal(err)
			}
		}
	})
}
