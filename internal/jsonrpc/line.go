package jsonrpc

import (
	"bufio"
	"errors"
	"fmt"
	"io"
)

// ioBufferBytes is the size of the buffers before Read and Write: the default
// capacity of a Linux pipe (pipe(7)), so that one system call can empty or fill it.
const ioBufferBytes = 64 << 10

// errLineTooLong tells that the next line exceeds the limit. The stream cannot be
// read on: where that line ends is unknown.
var errLineTooLong = errors.New("line too long")

// lineReader cuts a stream into lines of bounded length.
type lineReader struct {
	r    *bufio.Reader
	max  int    // bytes, without the line end
	long []byte // a line that is longer than r's buffer
}

func newLineReader(r io.Reader, limit int) *lineReader {
	return &lineReader{r: bufio.NewReaderSize(r, ioBufferBytes), max: limit}
}

// next returns one line without its line end. It is valid until the next call.
// Errors: io.EOF between two lines, io.ErrUnexpectedEOF (wrapped) inside one,
// errLineTooLong, and what the stream's Read returns.
func (l *lineReader) next() ([]byte, error) {
	if cap(l.long) > ioBufferBytes {
		l.long = nil // one big line must not keep its memory for good
	}
	l.long = l.long[:0]
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
