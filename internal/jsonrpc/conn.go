package jsonrpc

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"carrel/protocol"
)

// lastWords is how long an ending connection goes on writing what was already
// answered (the answer to "shutdown", the refusal that ended it), and how long it
// goes on reading after a failed Write (what a dying worker still said).
const lastWords = time.Second

// minLineBytes holds every refusal of our own wording with the longest id.
const minLineBytes = 1024

// Handler takes what the peer sends.
type Handler interface {
	// Notify is called in arrival order, one at a time, on the connection's
	// dispatch goroutine. It may block: that holds the peer back. It must not
	// Call or Notify on the same connection (see the package comment). ctx ends
	// with the connection. An unknown method is ignored by returning nil; an
	// error ends the connection with that error, and counts as a violation by
	// the peer ([ErrProtocol]) unless a *protocol.Error in its chain says
	// otherwise. params are nil if there were none, and may be kept.
	Notify(ctx context.Context, method string, params json.RawMessage) error
	// Request is called on a goroutine of its own, started in arrival order after
	// all earlier notifications were handled. ctx ends when the peer cancels the
	// request (its cause is then a *protocol.Error with CodeCanceled) or when the
	// connection ends, its input included. The answer: the result as JSON; a
	// *protocol.Error as protocol.RPCCarrelError with its code and message; an
	// *Error as it is, [ErrMethodNotFound] for an unknown method; any other error
	// as protocol.RPCInternalError without its text. params may be kept.
	Request(ctx context.Context, method string, params json.RawMessage) (any, error)
}

// Options bounds a connection. A zero field means its default.
type Options struct {
	// MaxLineBytes is the longest line either way, without its end; default
	// protocol.MaxLineBytes, at least minLineBytes. It is also how many bytes of
	// incoming messages may wait for dispatch.
	MaxLineBytes int
	// MaxRequests is how many incoming requests may be under way, those that
	// wait for dispatch included; default 64. More are refused with CodeQueueFull.
	MaxRequests int
	// Queue is how many incoming messages may wait for dispatch; default 256.
	Queue int
	// CancelGrace is how long a Call whose context ended waits for the peer to
	// confirm; default 7 s: 5 s for the peer to end what it started, 2 s reserve.
	CancelGrace time.Duration
}

// Conn is one end of a connection. Its methods are safe for concurrent use.
//
// [Conn.Run] starts three goroutines (reader, dispatch, writer) and one per
// incoming request, and waits for all of them.
type Conn struct {
	rwc      io.ReadWriteCloser
	handler  Handler
	options  Options
	in       *inbox
	out      *outbox
	encoders sync.Pool // of *encoder

	running  atomic.Bool
	requests sync.WaitGroup // handlers of incoming requests; added to by dispatch alone
	closing  chan struct{}  // closed when the end begins: Calls and Notifies fail
	done     chan struct{}  // closed when the end is complete
	fatal    chan error     // a Call found the connection to be of no more use

	mu sync.Mutex
	// err says what ended the connection; set before closing is closed.
	err error
	// Calls of ours. Ids count from 1, so one up to lastID that is in neither map
	// has been answered.
	lastID    uint64
	pending   map[uint64]chan answer
	abandoned map[uint64]struct{} // at most maxAbandoned
	// Requests of the peer. slots counts them up to the moment their answer is in
	// the outbox, incoming only until just before.
	slots    int
	incoming map[string]context.CancelCauseFunc // by idKey
}

// NewConn makes a connection; nothing happens on it before [Conn.Run]. Closing
// rwc must make a blocked Read and a blocked Write return, as it does for pipes
// and sockets that the runtime polls.
func NewConn(rwc io.ReadWriteCloser, h Handler, o Options) *Conn {
	o.MaxLineBytes = max(minLineBytes, cmp.Or(o.MaxLineBytes, protocol.MaxLineBytes))
	o.MaxRequests = max(1, cmp.Or(o.MaxRequests, 64))
	o.Queue = max(1, cmp.Or(o.Queue, 256))
	o.CancelGrace = max(0, cmp.Or(o.CancelGrace, 7*time.Second))
	c := &Conn{
		rwc:       rwc,
		handler:   h,
		options:   o,
		in:        newInbox(o.Queue, o.MaxLineBytes),
		out:       newOutbox(rwc),
		closing:   make(chan struct{}),
		done:      make(chan struct{}),
		fatal:     make(chan error, 1),
		pending:   make(map[uint64]chan answer),
		abandoned: make(map[uint64]struct{}),
		incoming:  make(map[string]context.CancelCauseFunc),
	}
	c.encoders.New = func() any { return newEncoder(o.MaxLineBytes) }
	return c
}

// Run reads and dispatches until the connection ends; call it once. It returns
// nil if the input ended between two lines, io.ErrUnexpectedEOF (wrapped) if it
// ended inside one, [ErrProtocol] if the peer broke a rule, the cause of ctx, a
// handler's error, or that of a failed Read or Write.
//
// When it returns, all goroutines of the connection have ended, all Calls have
// been failed and rwc is closed. It waits for handlers: they must heed their
// context. Up to a second of that wait serves to write what is already answered.
func (c *Conn) Run(ctx context.Context) error {
	if c.running.Swap(true) {
		return errors.New("jsonrpc: Run was called twice")
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)

	var loops, dispatching sync.WaitGroup
	dispatched := make(chan error, 1)
	inputEnded := make(chan struct{})
	loops.Go(func() {
		defer close(inputEnded)
		c.readLoop(ctx)
	})
	loops.Go(c.out.loop)
	dispatching.Go(func() { dispatched <- c.dispatchLoop(ctx) })

	err := c.supervise(ctx, dispatched, inputEnded)
	c.fail(err)
	cancel(c.closedError())
	c.in.drop()
	loops.Go(func() {
		dispatching.Wait() // before requests: dispatch adds to them
		c.requests.Wait()
		c.out.finish()
	})
	c.awaitLastWords()
	_ = c.rwc.Close() // the end is decided; its owner may have closed it before us
	loops.Wait()
	close(c.done)
	return err
}

// supervise waits for the first reason to end.
func (c *Conn) supervise(ctx context.Context, dispatched <-chan error, inputEnded <-chan struct{}) error {
	unwritable := c.out.ended
	var late <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case err := <-dispatched:
			if ctx.Err() != nil { // then err is but the handler's echo of it
				return context.Cause(ctx)
			}
			return err
		case err := <-c.fatal:
			return err
		case <-unwritable:
			// The peer no longer reads. If it died, the input ends soon, after its
			// last messages, which are then handled however long that takes; if
			// the input does not end, the peer is of no use.
			unwritable = nil
			timer := time.NewTimer(lastWords)
			defer timer.Stop()
			late = timer.C
		case <-inputEnded:
			inputEnded, unwritable, late = nil, nil, nil // the rest is up to dispatch
		case <-late:
			return c.out.failure()
		}
	}
}

// awaitLastWords waits until the outbox is written, but no longer than lastWords.
func (c *Conn) awaitLastWords() {
	timer := time.NewTimer(lastWords)
	defer timer.Stop()
	select {
	case <-c.out.ended:
	case <-timer.C:
	}
}

// fail records what ended the connection and fails all Calls.
func (c *Conn) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
	close(c.closing)
}

// closedError is what Calls and Notifies return once closing is closed.
func (c *Conn) closedError() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err == nil {
		return ErrClosed
	}
	return fmt.Errorf("%w: %w", ErrClosed, c.err)
}

// Done is closed when the connection has ended and Run is about to return.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err returns nil before Done is closed, and what Run returned after it.
func (c *Conn) Err() error {
	select {
	case <-c.done:
	default:
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}
