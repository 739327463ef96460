package client

import (
	"context"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strings"
	"time"

	"carrel/protocol"
)

// silenceLimit is how long an event stream may bring nothing, four of the
// daemon's keep-alives, before its connection counts as dead.
const silenceLimit = 60 * time.Second

// errSilent ends the connection of a stream that brought nothing for too long.
var errSilent = fmt.Errorf("the stream brought nothing for %s: the connection is dead, or a proxy holds back what the daemon sends", silenceLimit)

// eventStream is the media type of server-sent events.
const eventStream = "text/event-stream"

// stream is an SSE answer being read. close must follow.
type stream struct {
	resp     *http.Response
	dec      *decoder
	ctx      context.Context //nolint:containedctx // asked only why reading ended
	cancel   context.CancelCauseFunc
	watchdog *time.Timer // cancels ctx; put off by whatever arrives
}

// openStream makes a request that is answered with an event stream.
func (c *Client) openStream(ctx context.Context, what call) (s *stream, err error) {
	err = c.again(ctx, what.repeat, func() error {
		s, err = c.openStreamOnce(ctx, what)
		return err
	})
	return s, err
}

func (c *Client) openStreamOnce(ctx context.Context, what call) (*stream, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	s := &stream{ctx: ctx, cancel: cancel}
	s.watchdog = time.AfterFunc(silenceLimit, func() { cancel(errSilent) })
	resp, err := c.sendOnce(ctx, what) //nolint:bodyclose // close does
	if err != nil {
		s.close()
		return nil, s.cause(err)
	}
	s.resp = resp
	if media, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); media != eventStream {
		s.close()
		return nil, fmt.Errorf("%s %s: answered %q, not an event stream", what.method, what.path, media)
	}
	s.dec = newDecoder(resp.Body, func() { s.watchdog.Reset(silenceLimit) })
	return s, nil
}

// next returns the next frame; io.EOF at the proper end of the answer.
func (s *stream) next() (frame, error) {
	f, err := s.dec.next()
	if err != nil {
		return frame{}, s.cause(err)
	}
	return f, nil
}

// cause says that it was silence, where silence ended the reading.
func (s *stream) cause(err error) error {
	if errors.Is(context.Cause(s.ctx), errSilent) {
		return errSilent
	}
	return err
}

// ended describes a stream that came to its end too early. The daemon says why
// in a last comment, "error <code>: <message>".
func (s *stream) ended(what string) error {
	said, ok := strings.CutPrefix(s.dec.comment, "error ")
	if !ok {
		return fmt.Errorf("the stream ended before the %s did", what)
	}
	if code, message, _ := strings.Cut(said, ": "); protocol.Code(code).Known() {
		return &Error{Code: protocol.Code(code), Status: protocol.Code(code).HTTPStatus(), Message: message}
	}
	return fmt.Errorf("the stream ended before the %s did: %s", what, said)
}

// close ends the connection, if the answer has not come to its own end.
func (s *stream) close() {
	s.watchdog.Stop()
	s.cancel(nil)
	if s.resp != nil {
		_ = s.resp.Body.Close()
	}
}
