package tool

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Output keeps the head and the tail of what is written to it, and its true
// size. It is not safe for concurrent use.
type Output struct {
	limit int // bytes kept, half at each end
	head  []byte
	tail  []byte // a ring once it is full
	next  int    // where the ring is written next
	size  int64
}

// NewOutput keeps at most limit bytes.
func NewOutput(limit int) *Output { return &Output{limit: limit} }

// WriteString adds text.
func (o *Output) WriteString(text string) {
	o.size += int64(len(text))
	half := o.limit / 2
	if room := half - len(o.head); room > 0 {
		n := min(room, len(text))
		o.head = append(o.head, text[:n]...)
		text = text[n:]
	}
	if len(text) > half {
		text = text[len(text)-half:]
	}
	if room := half - len(o.tail); room > 0 {
		n := min(room, len(text))
		o.tail = append(o.tail, text[:n]...)
		text = text[n:]
	}
	for len(text) > 0 {
		n := copy(o.tail[o.next:], text)
		o.next = (o.next + n) % len(o.tail)
		text = text[n:]
	}
}

// Size is how many bytes were written.
func (o *Output) Size() int64 { return o.size }

// Truncated reports whether some of them were left out.
func (o *Output) Truncated() bool { return o.size > int64(len(o.head)+len(o.tail)) }

// String is what was kept; where something was left out, a line says how much.
// A character cut at such a place becomes U+FFFD.
func (o *Output) String() string {
	tail := string(o.tail[o.next:]) + string(o.tail[:o.next])
	text := string(o.head) + tail
	if o.Truncated() {
		missing := o.size - int64(len(o.head)+len(o.tail))
		text = fmt.Sprintf("%s\n[… %d bytes left out …]\n%s", o.head, missing, tail)
	}
	return strings.ToValidUTF8(text, string(utf8.RuneError))
}

// textDecoder turns a byte stream, read in pieces, into valid UTF-8: a character
// split between two pieces is kept for the next, a byte that belongs to none
// becomes U+FFFD.
type textDecoder struct {
	rest []byte
}

func (d *textDecoder) decode(p []byte) string {
	p = append(d.rest, p...)
	end := len(p)
	// Look back at most one character for a start that is not complete yet.
	for i := 1; i < utf8.UTFMax && i <= len(p); i++ {
		c := p[len(p)-i]
		if utf8.RuneStart(c) {
			if !utf8.FullRune(p[len(p)-i:]) {
				end = len(p) - i
			}
			break
		}
	}
	text := strings.ToValidUTF8(string(p[:end]), string(utf8.RuneError))
	d.rest = append([]byte(nil), p[end:]...)
	return text
}

// flush gives what is left at the end of the stream.
func (d *textDecoder) flush() string {
	text := strings.ToValidUTF8(string(d.rest), string(utf8.RuneError))
	d.rest = nil
	return text
}
