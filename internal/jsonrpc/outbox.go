package jsonrpc

import (
	"errors"
	"fmt"
	"io"
	"sync"
)

// maxUrgentBytes bounds what putNow may add beside a full buffer: some 400
// refusals of usual length.
const maxUrgentBytes = 64 << 10

// errStopped tells that put gave up because its stop channel was closed.
var errStopped = errors.New("stopped waiting for the writer")

// outbox collects whole lines for the one goroutine that writes (loop). While
// that is busy in Write the next lines collect; each Write takes all there are,
// so the buffer is flushed exactly when the input runs dry. It holds at most
// 64 KiB or one longer line, as much again in the hands of Write, and
// maxUrgentBytes.
type outbox struct {
	w io.Writer
	// turn is held by the one sender that waits for room; the others queue for
	// it first come, first served, so a long line is not overtaken for ever.
	turn chan struct{}
	room chan struct{} // has a token after the buffer was taken
	wake chan struct{} // has a token after the buffer was filled
	// ended is closed when loop has returned; no line goes out after that.
	ended chan struct{}

	mu        sync.Mutex
	buf       []byte // whole lines
	urgent    int    // bytes of buf that putNow added
	finishing bool   // end once buf is empty
	err       error  // set before ended is closed: a failed Write, or ErrClosed
}

func newOutbox(w io.Writer) *outbox {
	return &outbox{
		w:     w,
		turn:  make(chan struct{}, 1),
		room:  make(chan struct{}, 1),
		wake:  make(chan struct{}, 1),
		ended: make(chan struct{}),
	}
}

// put appends a line, waiting for room until stop or closing is closed; a nil
// channel never is. Errors: errStopped, ErrClosed, or that of the failed Write.
func (o *outbox) put(line []byte, stop, closing <-chan struct{}) error {
	select {
	case o.turn <- struct{}{}: // most often free: spares the select below
	default:
		select {
		case o.turn <- struct{}{}:
		case <-stop:
			return errStopped
		case <-closing:
			return ErrClosed
		case <-o.ended:
			return o.failure()
		}
	}
	defer func() { <-o.turn }()
	for {
		if done, err := o.add(line); done {
			return err
		}
		select {
		case <-o.room:
		case <-stop:
			return errStopped
		case <-closing:
			return ErrClosed
		case <-o.ended:
			return o.failure()
		}
	}
}

// add appends line if there is room. It reports false if put must wait.
func (o *outbox) add(line []byte) (bool, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		return true, o.err
	}
	if len(o.buf) > 0 && len(o.buf)+len(line) > ioBufferBytes {
		return false, nil
	}
	o.append(line)
	return true, nil
}

// putNow appends a line without waiting, whether the buffer is full or not. It
// reports false if too much of this kind waits already: the peer does not read.
func (o *outbox) putNow(line []byte) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.urgent+len(line) > maxUrgentBytes {
		return false
	}
	if o.err == nil {
		o.urgent += len(line)
		o.append(line)
	}
	return true
}

// append needs mu.
func (o *outbox) append(line []byte) {
	o.buf = append(o.buf, line...)
	signal(o.wake)
}

// finish lets loop end once everything has been written.
func (o *outbox) finish() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.finishing = true
	signal(o.wake)
}

func (o *outbox) failure() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.err
}

// loop writes until finish has been called and all is written, or Write fails.
func (o *outbox) loop() {
	defer close(o.ended)
	var spare []byte
	for {
		batch := o.take(spare)
		if batch == nil {
			return
		}
		if len(batch) == 0 {
			<-o.wake
			continue
		}
		n, err := o.w.Write(batch)
		if err == nil && n < len(batch) {
			err = io.ErrShortWrite
		}
		if err != nil {
			o.mu.Lock()
			o.err = fmt.Errorf("write: %w", err)
			o.buf = nil
			o.mu.Unlock()
			return
		}
		if spare = batch[:0]; cap(spare) > 2*ioBufferBytes {
			spare = nil // one big line must not keep its memory for good
		}
	}
}

// take swaps the filled buffer for an empty one. It returns nil at the end.
func (o *outbox) take(spare []byte) []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.buf) == 0 {
		if o.finishing {
			o.err = ErrClosed
			return nil
		}
		return []byte{}
	}
	batch := o.buf
	o.buf, o.urgent = spare, 0
	signal(o.room)
	return batch
}

// signal leaves a token in a channel of capacity one.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
