package main

import (
	"io"
	"os"
	"strings"
	"unicode"
	"unicode/utf16"

	"github.com/mattn/go-isatty"
)

// harmless is an output for a sandbox's text: where a stream is a terminal, it is
// shown [printable]; where it is none, its bytes are unchanged.
func (o *output) harmless() *output {
	return &output{stdout: harmless(o.stdout), stderr: harmless(o.stderr)}
}

func harmless(w io.Writer) io.Writer {
	if f, ok := w.(*os.File); ok && isatty.IsTerminal(f.Fd()) {
		return terminal{w}
	}
	return w
}

// terminal writes text to a terminal. No character may be cut between two writes:
// what is written here was a JSON string.
type terminal struct{ w io.Writer }

func (t terminal) Write(text []byte) (int, error) {
	if _, err := io.WriteString(t.w, printable(string(text))); err != nil {
		return 0, err
	}
	return len(text), nil
}

// printable shows what a terminal obeys, what turns the order of a text around, by
// which it reads as another one than is run, and what is not seen at all, as JSON
// writes it: \u001b. Only the end of a line and the tab stay. JSON stays JSON.
func printable(text string) string {
	if strings.IndexFunc(text, misleads) < 0 {
		return strings.ToValidUTF8(text, "\ufffd")
	}
	var b strings.Builder
	for _, r := range text {
		if !misleads(r) {
			b.WriteRune(r)
			continue
		}
		for _, unit := range utf16.AppendRune(nil, r) {
			const hex = "0123456789abcdef"
			b.Write([]byte{'\\', 'u', hex[unit>>12], hex[unit>>8&15], hex[unit>>4&15], hex[unit&15]})
		}
	}
	return b.String()
}

// misleads reports whether a character does something else than to be seen. Those of
// zero width are among the format characters (Cf), or are ignored by whoever has no
// use for them.
func misleads(r rune) bool {
	return r != '\n' && r != '\t' && unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Other_Default_Ignorable_Code_Point)
}
