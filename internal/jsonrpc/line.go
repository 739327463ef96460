package jsonrpc

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
)

// ioBufferBytes is the size of the buffers before Read and Write: the default
// capacity of a Linux pipe (pipe(7)), so that one system call can empty or fill it.
const ioBufferBytes = 64 << 10

// A connection that says little reads into less: a daemon has one for each sandbox, and
// most are idle.
const (
	idleBufferBytes = 4 << 10
	// littleReads in a row that would have had room in an idle buffer bring it back.
	littleReads = 1024
)

// errLineTooLong tells that the next line exceeds the limit. The stream cannot be
// read on: where that line ends is unknown.
var errLineTooLong = errors.New("line too long")

// lineReader cuts a stream into lines of bounded length.
type lineReader struct {
	from gauge
	r    *bufio.Reader
	max  int    // bytes, without the line end
	long []byte // a line that is longer than r's buffer
}

func newLineReader(r io.Reader, limit int) *lineReader {
	l := &lineReader{from: gauge{r: r}, max: limit}
	l.r = bufio.NewReaderSize(&l.from, idleBufferBytes)
	return l
}

// gauge notes how much of what it is asked for it gives.
type gauge struct {
	r      io.Reader
	ahead  []byte // what comes before r
	full   bool   // the last read had more to give, most likely
	little int    // reads in a row of no more than an idle buffer holds
}

func (g *gauge) Read(p []byte) (int, error) {
	if len(g.ahead) > 0 {
		n := copy(p, g.ahead)
		g.ahead = g.ahead[n:]
		return n, nil
	}
	n, err := g.r.Read(p)
	if g.full = n == len(p); n < idleBufferBytes {
		g.little++
	} else {
		g.little = 0
	}
	return n, err
}

// fit gives the buffer the size for what the last reads brought.
func (l *lineReader) fit() {
	size := l.r.Size()
	switch {
	case size < ioBufferBytes && l.from.full:
		size = ioBufferBytes
	case size > idleBufferBytes && l.from.little >= littleReads:
		size = idleBufferBytes
	default:
		return
	}
	rest, _ := l.r.Peek(l.r.Buffered())
	l.from = gauge{r: l.from.r, ahead: append(bytes.Clone(rest), l.from.ahead...)}
	l.r = bufio.NewReaderSize(&l.from, size)
}

// next returns one line without its line end. It is valid until the next call.
// Errors: io.EOF between two lines, io.ErrUnexpectedEOF (wrapped) inside one,
// errLineTooLong, and what the stream's Read returns.
func (l *lineReader) next() ([]byte, error) {
	if cap(l.long) > ioBufferBytes {
		l.long = nil // one big line must not keep its memory for good
	}
	l.long = l.long[:0]
	l.fit()
	for {
		part, err := l.r.ReadSlice('\n')
		if len(l.long)+len(part) > l.max+1 || (err != nil && len(l.long)+len(part) > l.max) {
			return nil, errLineTooLong
		}
		switch {
		case err == nil && len(l.long) == 0:
			return part[:len(part)-1], nil
		case err == nil:
			l.long = append(l.long, part...)
			return l.long[:len(l.long)-1], nil
		case errors.Is(err, bufio.ErrBufferFull):
			l.long = append(l.long, part...)
		case errors.Is(err, io.EOF) && len(l.long)+len(part) > 0:
			return nil, fmt.Errorf("line cut off after %d bytes: %w", len(l.long)+len(part), io.ErrUnexpectedEOF)
		default:
			return nil, err
		}
	}
}
