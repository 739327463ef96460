package jsonrpc

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"
)

var scannerSeeds = []string{
	``, ` `, `{}`, `[]`, `[[],{}]`, `{"a":[1,{"b":null}],"c":true}`, `{"a"}`, `{"a":}`, `{,}`, `[,]`, `[1,]`, `[1 2]`,
	`{"a":1,}`, `{"a":1 "b":2}`, `{a:1}`, `[}`, `{]`, `"`, `"\`, `"\u12`, `"\u12G4"`, `"\ud800"`, `"\x"`, `"a` + "\x1f" + `"`,
	`"\"\\\/\b\f\n\r\t"`, `0`, `-0`, `01`, `-`, `1.`, `.1`, `1e`, `1e+`, `1E-05`, `1.5e300`, `+1`, `tru`, `trues`, `null `, `nul`,
	"\x00", "[1]\x00", `{"a":1}}`, "\u2028", "\ufeff{}", "\"\u007f\"",
	strings.Repeat("[", 10000) + strings.Repeat("]", 10000),
	strings.Repeat("[", 10001) + strings.Repeat("]", 10001),
	strings.Repeat(`{"a":`, 10000) + `1` + strings.Repeat("}", 10000),
	strings.Repeat(`{"a":`, 9999) + `[[]]` + strings.Repeat("}", 9999),
}

// FuzzScanner holds the scanner against encoding/json, both as a checker of whole
// lines and as the finder of an object's members.
func FuzzScanner(f *testing.F) {
	for _, seed := range scannerSeeds {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		if !utf8.Valid(line) {
			return // refused before the scanner sees it
		}
		var d decoder
		d.scan.reset(line)
		err := d.document()
		if valid := json.Valid(line); valid != (err == nil) {
			t.Fatalf("%q: json.Valid %v, scanner: %v", line, valid, err)
		}
		d.scan.reset(line)
		d.scan.space()
		if d.scan.peek() != '{' {
			return
		}
		env, objectErr := d.envelope()
		if (objectErr == nil) != (err == nil) {
			t.Fatalf("%q: as a document: %v, as an envelope: %v", line, err, objectErr)
		}
		if err != nil || env.repeated != "" {
			return
		}
		var members map[string]json.RawMessage
		if err := json.Unmarshal(line, &members); err != nil {
			t.Fatal(err)
		}
		for name, got := range map[string][]byte{
			"jsonrpc": env.version, "id": env.id, "method": env.method,
			"params": env.params, "result": env.result, "error": env.failure,
		} {
			if string(members[name]) != string(got) {
				t.Fatalf("%q: member %s is %s, scanner found %s", line, name, members[name], got)
			}
		}
	})
}
