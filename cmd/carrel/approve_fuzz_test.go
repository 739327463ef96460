package main

import (
	"bytes"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"carrel/protocol"
)

// FuzzQuestion shows a question to a terminal. All of it is a worker's text: what is
// printed is UTF-8 of bounded length, holds nothing that a terminal obeys or that
// turns the reading order, and a name or an id takes up one line.
func FuzzQuestion(f *testing.F) {
	for _, text := range []string{
		"", "ls", "\x1b[2J", "\u009b2K", "\u202ex", "\u2066", "a\r\nallow? [y/N] y", "\x9b1A", "\xff", "\u2028", "\u200b\u00ad", "\ue0001\U000e0041",
		strings.Repeat("é", maxShownInput), "x" + strings.Repeat("é", maxShownInput), "\x00\x7f\x08",
	} {
		f.Add(text, text, []byte(text))
		f.Add("bash", text, []byte(`{"command":`+string(mustJSON(text))+`}`))
	}
	f.Fuzz(func(t *testing.T, name, reason string, input []byte) {
		shownInput := shown(input)
		if len(shownInput) > maxShownInput+64 || len(because(reason)) > maxShownInput+64 {
			t.Errorf("%d bytes are shown of an input, %d of a reason", len(shownInput), len(because(reason)))
		}
		for _, text := range []string{oneLine(name), because(reason), shownInput} {
			checkHarmless(t, text)
		}
		if strings.ContainsRune(oneLine(name), '\n') {
			t.Errorf("%q has more than one line", oneLine(name))
		}
		var stderr bytes.Buffer
		told := &teller{screen: newScreen(&output{stdout: io.Discard, stderr: &stderr}, true), isVerbose: len(reason)%2 == 0}
		for _, ev := range []protocol.Event{
			{Type: protocol.EventToolCallStart, Data: mustJSON(protocol.ToolCallStart{ID: "t", Name: name})},
			{Type: protocol.EventToolCallArgs, Data: mustJSON(protocol.ToolCallArgs{ID: "t", Delta: string(input)})},
			{Type: protocol.EventToolOutput, Data: mustJSON(protocol.ToolOutput{ID: "t", Text: reason})},
			{Type: protocol.EventToolCallResult, Data: mustJSON(protocol.ToolCallResult{ID: "t", Name: name, Result: reason, IsError: true})},
			{Type: protocol.EventApprovalResolved, Data: mustJSON(protocol.ApprovalResolved{Decision: name, Reason: reason})},
		} {
			if err := told.show(ev); err != nil {
				t.Fatal(err)
			}
		}
		checkHarmless(t, stderr.String())
	})
}

func checkHarmless(t *testing.T, text string) {
	t.Helper()
	if !utf8.ValidString(text) {
		t.Errorf("%q is no UTF-8", text)
	}
	for _, r := range text {
		if r != '\n' && r != '\t' && unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Bidi_Control) {
			t.Errorf("%q holds %U", text, r)
		}
	}
}

func mustJSON(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}
