package httpapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"carrel/protocol"
)

// stream is an SSE answer under way. Its goroutine writes the comments that
// keep the connection; close ends it and waits. All methods but close may be
// called concurrently.
type stream struct {
	header    http.Header
	sendHead  func(status int)
	out       pacedWriter
	keepAlive time.Duration
	cancel    context.CancelCauseFunc
	soon      chan struct{} // closed by startSoon
	stop      chan struct{} // closed by close
	stopped   chan struct{} // closed when the goroutine is gone
	closing   sync.Once

	mu      sync.Mutex // guards all below, and writing
	started bool       // the headers are out
	buf     []byte     // the frames of the write under way
	err     error      // of the first write that failed; none follows
}

// headWait is how long the head of an answer waits for a first event to go with.
const headWait = 10 * time.Millisecond

// maxIdleBuffer is the largest buffer a stream keeps between two writes.
const maxIdleBuffer = 256 << 10

// openStream prepares an SSE answer. Nothing is sent before startSoon, the first
// frame, or the first keep-alive, so that an error until then can still be a
// problem document. The context it returns ends when the client is gone, be it
// that the connection ended or that a write failed. close must follow.
func (a *api) openStream(ctx context.Context, w http.ResponseWriter) (*stream, context.Context) {
	ctx, cancel := context.WithCancelCause(ctx)
	s := &stream{
		header:    w.Header(),
		sendHead:  w.WriteHeader,
		out:       newPacedWriter(w, a.opts.SlowReader),
		keepAlive: a.opts.KeepAlive,
		cancel:    cancel,
		soon:      make(chan struct{}),
		stop:      make(chan struct{}),
		stopped:   make(chan struct{}),
	}
	go s.keep(ctx)
	return s, ctx
}

// keep writes a comment at every keep-alive, until close or a failed write, and the
// head, if startSoon wants it and no event has come by then.
func (s *stream) keep(ctx context.Context) {
	defer close(s.stopped)
	tick := time.NewTicker(s.keepAlive)
	defer tick.Stop()
	soon := s.soon
	var head <-chan time.Time
	for {
		select {
		case <-s.stop:
			return
		case <-ctx.Done():
			return
		case <-soon:
			soon, head = nil, time.After(headWait)
		case <-head:
			if !s.mu.TryLock() {
				continue // somebody is writing: the head goes with that
			}
			err := s.headAlone()
			s.mu.Unlock()
			if err != nil {
				return
			}
		case <-tick.C:
			if !s.mu.TryLock() {
				continue // somebody is writing: the connection is not quiet
			}
			err := s.send(appendComment(s.buf[:0], "keep-alive"))
			s.mu.Unlock()
			if err != nil {
				return
			}
		}
	}
}

// close ends the keep-alive. After it nobody but the caller writes.
func (s *stream) close() {
	s.closing.Do(func() { close(s.stop) })
	<-s.stopped
	s.cancel(nil)
}

// startSoon has the headers sent with the first event, or alone, if that takes longer
// than headWait.
func (s *stream) startSoon() { close(s.soon) }

// start sends the headers, unless they are out.
func (s *stream) start() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.headAlone()
}

// headAlone is start for a caller that holds s.mu.
func (s *stream) headAlone() error {
	if s.started {
		return s.err
	}
	return s.send(s.buf[:0])
}

// events sends a batch in one write.
func (s *stream) events(batch []protocol.Event) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.buf[:0]
	for _, e := range batch {
		var err error
		if b, err = appendEvent(b, e); err != nil {
			return errors.Join(s.send(b), err) // those before it are good
		}
		if len(b) >= maxIdleBuffer {
			if err := s.send(b); err != nil {
				return err
			}
			b = s.buf[:0]
		}
	}
	return s.send(b)
}

// append sends what add appends to a buffer, in one write; where that fails, what it has
// appended so far.
func (s *stream) append(add func(b []byte) ([]byte, error)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, err := add(s.buf[:0])
	return errors.Join(s.send(b), err)
}

// frame sends one frame that has no id.
func (s *stream) frame(event protocol.EventType, data any) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, err := appendFrame(s.buf[:0], event, data)
	if err != nil {
		return err
	}
	return s.send(b)
}

func (s *stream) comment(text string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.send(appendComment(s.buf[:0], text))
}

// fail ends the answer early because of err, which it returns for the log, or
// for the problem document where nothing was sent yet. A client that reads the
// stream gets a comment of the form ": error <code>: <message>", never an event
// that its run did not have.
func (s *stream) fail(ctx context.Context, err error) error {
	clientGone := ctx.Err() != nil // asked first: close ends ctx too
	s.close()
	if s.started && s.err == nil && !clientGone {
		e := errorOf(err)
		_ = s.comment("error " + e.Error()) // its failure tells no more than err
	}
	return err
}

// send writes b, which may be s.buf grown, behind the headers. The caller holds
// s.mu.
func (s *stream) send(b []byte) error {
	if s.err != nil {
		return s.err
	}
	if s.buf = b; cap(b) > 2*maxIdleBuffer {
		s.buf = nil
	}
	if !s.started {
		s.started = true
		s.header.Set("Content-Type", "text/event-stream")
		s.header.Set("Cache-Control", "no-store")
		s.header.Set("X-Accel-Buffering", "no") // nginx would hold events back
		s.sendHead(http.StatusOK)
	}
	_, err := s.out.Write(b)
	if err == nil {
		err = s.out.Flush()
	}
	if err != nil {
		s.err = fmt.Errorf("client gone or too slow: %w", err)
		s.cancel(s.err)
	}
	return s.err
}
