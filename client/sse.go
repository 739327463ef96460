package client

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"carrel/protocol"
)

// maxFrameBytes bounds the lines of one SSE frame together: an event came to
// the daemon in one JSON-RPC line, and leaves it in a larger envelope.
const maxFrameBytes = protocol.MaxLineBytes + 64<<10

// errFrameTooLong tells of a frame longer than maxFrameBytes.
var errFrameTooLong = fmt.Errorf("%w: a frame is longer than %d bytes", ErrBrokenStream, maxFrameBytes)

// frame is one server-sent event (WHATWG HTML, section 9.2).
type frame struct {
	id    string
	event string
	data  []byte // lines joined by \n; valid until the next frame
}

// decoder reads server-sent events. Any of \n, \r\n and \r ends a line.
type decoder struct {
	r       *bufio.Reader
	line    []byte
	data    []byte
	skipLF  bool   // the last line ended in \r: a \n now belongs to it
	begun   bool   // something was read: no byte order mark any more
	comment string // the last comment, cut to maxCommentBytes
	// alive is called whenever something was read: the server is there.
	alive func()
}

const maxCommentBytes = 4 << 10

func newDecoder(r io.Reader, alive func()) *decoder {
	return &decoder{r: bufio.NewReaderSize(r, 64<<10), alive: alive}
}

// next returns the next frame that has data. It returns io.EOF at the end of
// the stream; a frame that the end cut off is dropped, as the standard says.
func (d *decoder) next() (frame, error) {
	var f frame
	size, hasData := 0, false
	d.data = d.data[:0]
	for {
		line, err := d.readLine(maxFrameBytes - size)
		if err != nil {
			return frame{}, err
		}
		size += len(line)
		if len(line) == 0 {
			if hasData {
				f.data = d.data
				return f, nil
			}
			f, size = frame{}, 0
			continue
		}
		field, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(field) {
		case "":
			d.comment = string(value[:min(len(value), maxCommentBytes)])
		case "id":
			f.id = string(value)
		case "event":
			f.event = string(value)
		case "data":
			if hasData {
				d.data = append(d.data, '\n')
			}
			d.data, hasData = append(d.data, value...), true
		}
	}
}

// readLine returns the next line without its end, of at most limit bytes; it is
// valid until the following call. A last line without an end is dropped.
func (d *decoder) readLine(limit int) ([]byte, error) {
	d.line = d.line[:0]
	for {
		chunk, err := d.peek()
		if err != nil {
			return nil, err
		}
		if d.skipLF {
			d.skipLF = false
			if chunk[0] == '\n' {
				d.discard(1)
				continue
			}
		}
		end := bytes.IndexByte(chunk, '\n')
		if end < 0 {
			end = len(chunk)
		}
		if cr := bytes.IndexByte(chunk[:end], '\r'); cr >= 0 {
			end = cr
		}
		if len(d.line)+end > limit {
			return nil, errFrameTooLong
		}
		d.line = append(d.line, chunk[:end]...)
		if end == len(chunk) {
			d.discard(end)
			continue
		}
		d.skipLF = chunk[end] == '\r'
		d.discard(end + 1)
		if !d.begun {
			d.begun = true
			d.line = bytes.TrimPrefix(d.line, []byte("\uFEFF"))
		}
		return d.line, nil
	}
}

// peek returns what is buffered, at least one byte of it.
func (d *decoder) peek() ([]byte, error) {
	if _, err := d.r.Peek(1); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, io.EOF
		}
		return nil, fmt.Errorf("read stream: %w", err)
	}
	d.alive()
	return d.r.Peek(d.r.Buffered())
}

// discard gives up n bytes that peek has shown.
func (d *decoder) discard(n int) { _, _ = d.r.Discard(n) }
