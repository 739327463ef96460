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
// split between two pieces is kept for the next, a run of bytes that belong to
// none becomes one U+FFFD. What it gives for all pieces together is what
// strings.ToValidUTF8 gives for the whole.
type textDecoder struct {
	rest []byte
	bad  bool // the last byte decoded belonged to none: the run may go on
}

func (d *textDecoder) decode(p []byte) string {
	if len(d.rest) > 0 {
		p = append(d.rest, p...)
	}
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
	text := d.valid(p[:end])
	d.rest = append([]byte(nil), p[end:]...)
	return text
}

// flush gives what is left at the end of the stream.
func (d *textDecoder) flush() string {
	text := d.valid(d.rest)
	d.rest = nil
	return text
}

// valid decodes whole characters.
func (d *textDecoder) valid(p []byte) string {
	for d.bad && len(p) > 0 { // of a run that began in the last piece
		if r, size := utf8.DecodeRune(p); r != utf8.RuneError || size != 1 {
			break
		}
		p = p[1:]
	}
	if len(p) > 0 {
		r, size := utf8.DecodeLastRune(p)
		d.bad = r == utf8.RuneError && size == 1
	}
	return strings.ToValidUTF8(string(p), string(utf8.RuneError))
}
