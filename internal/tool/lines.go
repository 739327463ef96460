package tool

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"unicode/utf8"
)

// lines reads text line by line and keeps at most max bytes of each, so that a
// file without any line ends costs no more memory than another.
type lines struct {
	from *bufio.Reader
	max  int
	line []byte
	cut  int64 // bytes of the line that were left out
}

func newLines(from io.Reader, limit int) *lines {
	return &lines{from: bufio.NewReaderSize(from, 64<<10), max: limit}
}

// next reads a line, without its end, into line. It returns io.EOF after the last
// one; a last line without an end is a line.
func (l *lines) next() error {
	l.line, l.cut = l.line[:0], 0
	some := false
	for {
		piece, err := l.from.ReadSlice('\n')
		some = some || len(piece) > 0
		end := err == nil
		piece = bytes.TrimSuffix(piece, []byte("\n"))
		n := min(len(piece), l.max-len(l.line))
		l.line = append(l.line, piece[:n]...)
		l.cut += int64(len(piece) - n)
		switch {
		case end, errors.Is(err, io.EOF) && some:
			return nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return err
		}
	}
}

// sniffBytes is how much of a file is looked at to tell text from other things.
const sniffBytes = 8000

// isBinary reports whether what follows in the reader is no text: a zero byte at
// its beginning, as git takes it.
func isBinary(r *bufio.Reader) bool {
	head, _ := r.Peek(sniffBytes) // shorter at the end of the file
	return bytes.IndexByte(head, 0) >= 0
}

// shorten cuts a line at most limit bytes long, at a character's end.
func shorten(line []byte, limit int) []byte {
	if len(line) <= limit {
		return line
	}
	for limit > 0 && !utf8.RuneStart(line[limit]) {
		limit--
	}
	return line[:limit]
}
