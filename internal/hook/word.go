package hook

import (
	"strings"

	"mvdan.cc/sh/v3/syntax"
)

// textOf is a word as the command gets it, with unknown for each part that is
// known only when it runs. A word that the shell may make several of, or a name of
// a file from, is unknown as a whole.
func textOf(w *syntax.Word) string {
	if w == nil {
		return ""
	}
	var b strings.Builder
	for i, part := range w.Parts {
		switch p := part.(type) {
		case *syntax.Lit:
			if strings.ContainsAny(p.Value, "*?[{}") || i == 0 && strings.HasPrefix(p.Value, "~") {
				return string(unknown)
			}
			b.WriteString(unescape(p.Value, ""))
		case *syntax.SglQuoted:
			if p.Dollar && strings.Contains(p.Value, `\`) {
				b.WriteByte(unknown)
			} else {
				b.WriteString(p.Value)
			}
		case *syntax.DblQuoted:
			b.WriteString(quoted(p))
		default:
			b.WriteByte(unknown)
		}
	}
	return b.String()
}

func quoted(q *syntax.DblQuoted) string {
	if q.Dollar { // translated by whatever the locale says
		return string(unknown)
	}
	var b strings.Builder
	for _, part := range q.Parts {
		if lit, ok := part.(*syntax.Lit); ok {
			b.WriteString(unescape(lit.Value, "$`\"\\"))
		} else {
			b.WriteByte(unknown)
		}
	}
	return b.String()
}

// unescape takes backslashes away: in front of any character, or of one of only;
// with a line's end they go both.
func unescape(text, only string) string {
	if !strings.Contains(text, `\`) {
		return text
	}
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		c := text[i]
		if c == '\\' && i+1 < len(text) {
			next := text[i+1]
			if next == '\n' {
				i++
				continue
			}
			if only == "" || strings.IndexByte(only, next) >= 0 {
				i++
				c = next
			}
		}
		b.WriteByte(c)
	}
	return b.String()
}
