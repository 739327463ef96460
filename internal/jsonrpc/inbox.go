package jsonrpc

import "sync"

// inbox is the queue between the reader (put) and dispatch (get). It is bounded
// twice, by messages and by bytes: a count alone would let 256 lines of 4 MiB
// wait. When it is full, put waits: the reader then stops reading (see doc.go).
type inbox struct {
	maxBytes int

	mu       sync.Mutex
	notEmpty sync.Cond
	notFull  sync.Cond
	ring     []message
	head, n  int // oldest message, number of messages
	bytes    int
	closed   bool
	err      error // why the input ended; nil at a clean end
}

func newInbox(maxMessages, maxBytes int) *inbox {
	q := &inbox{maxBytes: maxBytes, ring: make([]message, maxMessages)}
	q.notEmpty.L, q.notFull.L = &q.mu, &q.mu
	return q
}

// put appends m, waiting for room. A message bigger than the byte limit fits
// into an empty queue. It reports false once the inbox is closed.
func (q *inbox) put(m message) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for !q.closed && (q.n == len(q.ring) || (q.n > 0 && q.bytes+m.size() > q.maxBytes)) {
		q.notFull.Wait()
	}
	if q.closed {
		return false
	}
	q.ring[(q.head+q.n)%len(q.ring)] = m
	q.n++
	q.bytes += m.size()
	q.notEmpty.Signal()
	return true
}

// get takes the oldest message, waiting for one. After the last message of a
// closed inbox it returns false and why the input ended.
func (q *inbox) get() (message, bool, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.n == 0 && !q.closed {
		q.notEmpty.Wait()
	}
	if q.n == 0 {
		return message{}, false, q.err
	}
	m := q.ring[q.head]
	q.ring[q.head] = message{} // let go of the body
	q.head = (q.head + 1) % len(q.ring)
	q.n--
	q.bytes -= m.size()
	q.notFull.Signal()
	return m, true, nil
}

// close ends the input for the reason err; what waits can still be got. The
// first close counts.
func (q *inbox) close(err error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return
	}
	q.closed, q.err = true, err
	q.notEmpty.Broadcast()
	q.notFull.Broadcast()
}

// drop closes the inbox and throws away what waits in it.
func (q *inbox) drop() {
	q.mu.Lock()
	defer q.mu.Unlock()
	clear(q.ring)
	q.n, q.bytes, q.closed = 0, 0, true
	q.notEmpty.Broadcast()
	q.notFull.Broadcast()
}
