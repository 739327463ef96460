package exact

import (
	"strings"
	"testing"
)

func TestOnlyOneExactValueIsTaken(t *testing.T) {
	for text, taken := range map[string]bool{
		`{}`: true, `{"a":[1,{"x":"x"},{"x":"x"}],"b":{"a":1,"b":2}}`: true, " {\"a\":[]}\n": true, `{"b":{"x":"x","y":"x"}}`: true,
		`{"a":["a","a",["a"]],"b":{"a":"a"}}`: true, `null`: true,
		`{"a":[],"a":[]}`: false, `{"a":[],"A":[]}`: false, `{"b":{"x":1,"y":2,"x":3}}`: false, `{"a":[{"x":{"y":1,"y":1}}]}`: false,
		`{"b":{"x":{},"x":[]}}`: false, `{"b":{"x":"y","\u0078":"z"}}`: false,
		`{}}`: false, `{} ]`: false, `{}{}`: false, `{} x`: false, `{"a":[]`: false, ``: false, `{"c":1}`: false, `{"b":1}`: false,
		`{"b":{"x":` + strings.Repeat("[", 9000) + strings.Repeat("]", 9000) + `}}`: true,
	} {
		var v struct {
			A []any          `json:"a"`
			B map[string]any `json:"b"`
		}
		if err := Decode([]byte(text), &v); (err == nil) != taken {
			t.Errorf("%.60s: %v", text, err)
		}
	}
}
