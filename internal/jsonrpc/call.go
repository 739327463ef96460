package jsonrpc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"carrel/protocol"
)

// maxAbandoned is how many canceled Calls a peer may leave unanswered: their ids
// are kept, to tell a late response from a false one. Beyond it the connection
// ends, since a peer that confirms no cancel has stopped working.
const maxAbandoned = 1024

// answer is the response to one Call: a result, or the peer's error.
type answer struct {
	result json.RawMessage
	err    error
}

// Call sends a request and waits for its answer, which it decodes into result
// (nil: thrown away). All notifications the peer sent before the answer have
// been handled when Call returns. params must encode to an object or an array;
// nil means none.
//
// If ctx ends, Call asks the peer to cancel and waits up to Options.CancelGrace
// for the answer: a result that comes is still a success, an error that comes is
// returned; if nothing comes, the cause of ctx is (wrapped).
//
// Errors: the peer's, as *protocol.Error if it carries a known code, else as
// *Error; [ErrClosed]; [ErrProtocol] if the result does not fit (the connection
// goes on); CodeTooLarge if params do not fit into a line.
func (c *Conn) Call(ctx context.Context, method string, params, result any) error {
	id, answers := c.issue()
	if err := c.send(ctx, id, method, params); err != nil {
		c.withdraw(id)
		return fmt.Errorf("call %s: %w", method, err)
	}
	var got answer
	select {
	case got = <-answers:
	case <-c.closing:
		select {
		case got = <-answers: // it came before the end
		default:
			return fmt.Errorf("call %s: %w", method, c.closedError())
		}
	case <-ctx.Done():
		var err error
		if got, err = c.confirmCancel(ctx, id, answers); err != nil {
			return fmt.Errorf("call %s: %w", method, err)
		}
	}
	if got.err != nil || result == nil {
		return got.err
	}
	if err := json.Unmarshal(got.result, result); err != nil {
		return violationf("result of %s: %w", method, err)
	}
	return nil
}

// Notify sends a notification. It returns once the line is in the outbox, and
// blocks while that is full. Errors: the cause of ctx, [ErrClosed], the failed
// Write, CodeTooLarge.
func (c *Conn) Notify(ctx context.Context, method string, params any) error {
	if err := c.send(ctx, 0, method, params); err != nil {
		return fmt.Errorf("notify %s: %w", method, err)
	}
	return nil
}

// send queues a request, or with id 0 a notification.
func (c *Conn) send(ctx context.Context, id uint64, method string, params any) error {
	select {
	case <-c.closing:
		return c.closedError()
	case <-ctx.Done():
		return context.Cause(ctx)
	default:
	}
	e := c.encoder()
	defer c.encoders.Put(e)
	line, err := e.call(id, method, params)
	if err != nil {
		return err
	}
	switch err := c.out.put(line, ctx.Done(), c.closing); {
	case errors.Is(err, errStopped):
		return context.Cause(ctx)
	case errors.Is(err, ErrClosed):
		return c.closedError()
	default:
		return err
	}
}

// issue takes the next id and registers a Call under it.
func (c *Conn) issue() (uint64, <-chan answer) {
	answers := make(chan answer, 1)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lastID++
	c.pending[c.lastID] = answers
	return c.lastID, answers
}

// withdraw forgets a Call that was never sent.
func (c *Conn) withdraw(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.pending, id)
}

// confirmCancel tells the peer that ctx has ended and waits for its answer.
func (c *Conn) confirmCancel(ctx context.Context, id uint64, answers <-chan answer) (answer, error) {
	select {
	case got := <-answers: // at the same moment
		return got, nil
	default:
	}
	grace, stop := context.WithTimeout(context.WithoutCancel(ctx), c.options.CancelGrace)
	defer stop()
	raw := json.RawMessage(strconv.FormatUint(id, 10))
	// If the cancel cannot be sent, waiting for an answer is all that is left, and
	// the same grace bounds it.
	_ = c.send(grace, 0, protocol.MethodCancel, protocol.CancelParams{ID: raw})
	select {
	case got := <-answers:
		return got, nil
	case <-grace.Done():
	case <-c.closing:
	}
	c.abandon(id)
	select {
	case got := <-answers: // before it was abandoned
		return got, nil
	default:
		return answer{}, context.Cause(ctx)
	}
}

// abandon makes the response to a Call, should it still come, be dropped.
func (c *Conn) abandon(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, waits := c.pending[id]; !waits {
		return
	}
	delete(c.pending, id)
	c.abandoned[id] = struct{}{}
	if len(c.abandoned) > maxAbandoned {
		select {
		case c.fatal <- violationf("%d canceled requests were never answered", len(c.abandoned)):
		default: // said already
		}
	}
}

// deliver gives a response to its Call. An error is a violation.
func (c *Conn) deliver(m message) error {
	got := answer{result: m.body}
	if m.failed {
		var violation error
		if got.err, violation = peerError(m.body); violation != nil {
			return violation
		}
	}
	if string(m.id) == "null" {
		if got.err == nil {
			return violationf("result for id null")
		}
		// As text: the peer must not choose what this error is.
		return violationf("the peer refused a line: %.200s", got.err.Error())
	}
	id, err := strconv.ParseUint(string(m.id), 10, 64)
	if err != nil {
		return violationf("response to id %s, which was never issued", m.id)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if answers, waits := c.pending[id]; waits {
		delete(c.pending, id)
		answers <- got // has room: one answer a Call
		return nil
	}
	if _, late := c.abandoned[id]; late {
		delete(c.abandoned, id)
		return nil
	}
	if id == 0 || id > c.lastID {
		return violationf("response to id %d, which was never issued", id)
	}
	return violationf("second response to id %d", id)
}

// encoder borrows an encoder; give it back with c.encoders.Put once its line has
// been queued.
func (c *Conn) encoder() *encoder {
	e, _ := c.encoders.Get().(*encoder) // the pool holds nothing else
	if e.buf.Cap() > 2*ioBufferBytes {
		e = newEncoder(c.options.MaxLineBytes) // one big line must not keep its memory for good
	}
	return e
}
