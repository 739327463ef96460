package jsonrpc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"carrel/protocol"
)

// readLoop reads until the input ends and then lets dispatch finish what waits.
func (c *Conn) readLoop(ctx context.Context) {
	requests, cancel := context.WithCancelCause(ctx)
	err := c.read(requests)
	// Nothing may outlive the peer that asked for it, so its requests end now;
	// what it has sent is still handled.
	cancel(ErrClosed)
	c.in.close(err)
}

// read takes line after line; requests is the parent of all requests' contexts.
func (c *Conn) read(requests context.Context) error {
	lines := newLineReader(c.rwc, c.options.MaxLineBytes)
	var d decoder
	for {
		line, err := lines.next()
		switch {
		case err == nil:
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, errLineTooLong):
			return c.refuse(notJSON(fmt.Sprintf("line longer than %d bytes", c.options.MaxLineBytes)))
		default:
			return fmt.Errorf("read: %w", err)
		}
		m, refused := d.decode(line)
		if refused == nil {
			switch {
			case m.kind == request:
				refused = c.admit(requests, &m)
			case m.kind == notification && m.method == protocol.MethodCancel:
				if refused = c.cancelIncoming(m.body); refused == nil {
					continue
				}
			}
		}
		if refused != nil {
			if err := c.refuse(refused); err != nil {
				return err
			}
			continue
		}
		if !c.in.put(m) {
			return nil // the connection is ending already
		}
	}
}

// refuse answers a line that was not taken. An error ends the connection.
func (c *Conn) refuse(f *fault) error {
	if f.answer == nil {
		return f.end
	}
	e := c.encoder()
	defer c.encoders.Put(e)
	line, err := e.failure(f.id, f.answer)
	if err != nil {
		return fmt.Errorf("refuse a line: %w", err)
	}
	if !c.out.putNow(line) && f.end == nil {
		return violationf("the peer goes on sending what is refused and reads no answer")
	}
	return f.end
}

// admit registers a request as under way, from which moment it can be canceled.
func (c *Conn) admit(ctx context.Context, m *message) *fault {
	key := idKey(m.id)
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, twice := c.incoming[key]; twice {
		// The id belongs to the request under way: its answer must stay the only one.
		return invalid(nil, "id %.64s is in use", m.id)
	}
	if c.slots >= c.options.MaxRequests {
		full := protocol.Errorf(protocol.CodeQueueFull, "more than %d requests at once", c.options.MaxRequests)
		return &fault{answer: wireError(full), id: m.id}
	}
	c.slots++
	ctx, cancel := context.WithCancelCause(ctx)
	c.incoming[key] = cancel
	id, method, params := m.id, m.method, m.body
	m.serve = func() {
		defer cancel(nil)
		result, err := c.handler.Request(ctx, method, params)
		c.answer(id, result, err)
	}
	return nil
}

// cancelIncoming handles the peer's "cancel". An id that is not under way is no
// fault: the answer may have crossed with the cancel.
func (c *Conn) cancelIncoming(params json.RawMessage) *fault {
	var p protocol.CancelParams
	if err := json.Unmarshal(params, &p); err != nil || p.ID == nil {
		return invalid(nil, "cancel needs the id of a request")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if cancel, underWay := c.incoming[idKey(p.ID)]; underWay {
		cancel(protocol.Errorf(protocol.CodeCanceled, "canceled by the caller"))
	}
	return nil
}

// dispatchLoop handles messages in order until the inbox is closed and empty, or
// one of them ends the connection.
func (c *Conn) dispatchLoop(ctx context.Context) error {
	for {
		m, ok, err := c.in.get()
		if !ok {
			return err
		}
		switch m.kind {
		case notification:
			err = c.notified(ctx, m)
		case response:
			err = c.deliver(m)
		case request:
			c.requests.Go(m.serve)
		}
		if err != nil {
			return err
		}
	}
}

func (c *Conn) notified(ctx context.Context, m message) error {
	err := c.handler.Notify(ctx, m.method, m.body)
	if err == nil {
		return nil
	}
	err = fmt.Errorf("notification %.64q: %w", m.method, err)
	if _, coded := errors.AsType[*protocol.Error](err); coded || errors.Is(err, ErrProtocol) {
		return err
	}
	return violationf("%w", err)
}

// answer queues the answer to a request and ends its being under way.
func (c *Conn) answer(id json.RawMessage, result any, err error) {
	e := c.encoder()
	defer c.encoders.Put(e)
	line := e.answer(id, result, err)

	// The peer may use the id again as soon as it sees the answer, so the id goes
	// first; the slot stays, or a peer that does not read would have answers pile up.
	c.mu.Lock()
	delete(c.incoming, idKey(id))
	c.mu.Unlock()
	// An error means that nobody can be told any more; the writer's owner knows.
	_ = c.out.put(line, nil, nil)
	c.mu.Lock()
	c.slots--
	c.mu.Unlock()
}

// answer encodes what a handler returned. What cannot be encoded is answered as
// an error: a caller must never wait for nothing.
func (e *encoder) answer(id json.RawMessage, result any, err error) []byte {
	var line []byte
	if err == nil {
		line, err = e.result(id, result)
	}
	if err != nil {
		line, err = e.failure(id, wireError(err))
	}
	if err != nil {
		line, err = e.failure(id, wireError(err))
	}
	if err != nil {
		panic("jsonrpc: an error of our own wording does not encode: " + err.Error())
	}
	return line
}
