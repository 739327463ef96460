package tool

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

const (
	defaultLines = 2000
	maxLineBytes = 2000 // shown of one line
)

// read gives lines of a text file, numbered.
func (o *fileOp) read() Result {
	f, info, err := openRegular(o.path)
	if err != nil {
		return o.explain(err, o.path)
	}
	defer func() { _ = f.Close() }()
	l := newLines(o.inTime(f), maxLineBytes)
	if isBinary(l.from) {
		return failf("%s is a binary file of %d bytes, not text; look at it with bash (file, xxd, strings)", o.path, info.Size())
	}
	first, most := max(o.Input.Offset, 1), o.Input.Limit
	if most <= 0 {
		most = defaultLines
	}
	return o.readLines(l, info, first, most)
}

func (o *fileOp) readLines(l *lines, info os.FileInfo, first, most int) Result {
	var b strings.Builder
	number, last := 0, 0
	for {
		err := l.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return o.explain(err, o.path)
		}
		number++
		if number < first {
			continue
		}
		// A line takes what the whole may take at most, so one is always given.
		if last > 0 && (number-first >= most || b.Len()+len(l.line) > o.Bytes) {
			text := strings.ToValidUTF8(b.String(), "\uFFFD")
			note := fmt.Sprintf("lines %d to %d of a file of %d bytes; it goes on: read on with offset %d", first, last, info.Size(), number)
			return Result{Content: withNotes(text, []string{note}), Truncated: true, Bytes: info.Size()}
		}
		last = number
		fmt.Fprintf(&b, "%6d\t%s", number, shorten(l.line, o.Bytes))
		if l.cut > 0 {
			fmt.Fprintf(&b, " [… %d bytes of this line left out]", l.cut)
		}
		b.WriteByte('\n')
	}
	var notes []string
	switch {
	case number == 0:
		notes = []string{"the file is empty"}
	case last == 0:
		return failf("%s has %d lines; there is no line %d", o.path, number, first)
	}
	return Result{Content: withNotes(strings.ToValidUTF8(b.String(), "\uFFFD"), notes), Bytes: info.Size()}
}
