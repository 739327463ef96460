package jsonrpc

import (
	"errors"
	"io"
	"strings"
	"testing"
)

// batches gives each of its texts by one Read, as far as there is room.
type batches []string

func (b *batches) Read(p []byte) (int, error) {
	if len(*b) == 0 {
		return 0, io.EOF
	}
	n := copy(p, (*b)[0])
	if (*b)[0] = (*b)[0][n:]; (*b)[0] == "" {
		*b = (*b)[1:]
	}
	return n, nil
}

func TestBufferIsLargeWhileMuchComesAndNoLonger(t *testing.T) {
	line := strings.Repeat("x", 99) + "\n"
	little, much := line, strings.Repeat(line, 2000)
	var from batches
	for range 3 {
		from = append(from, little)
	}
	from = append(from, much)
	for range 2 * littleReads {
		from = append(from, little)
	}
	l := newLineReader(&from, 1000)
	lines, sizes := 0, []int{l.r.Size()}
	for {
		got, err := l.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil || string(got) != line[:99] {
			t.Fatalf("line %d: %q, %v", lines, got, err)
		}
		lines++
		if size := l.r.Size(); size != sizes[len(sizes)-1] {
			sizes = append(sizes, size)
		}
	}
	if want := 3 + 2000 + 2*littleReads; lines != want {
		t.Errorf("%d lines, want %d", lines, want)
	}
	if len(sizes) != 3 || sizes[0] != idleBufferBytes || sizes[1] != ioBufferBytes || sizes[2] != idleBufferBytes {
		t.Errorf("sizes of the buffer: %v", sizes)
	}
}
