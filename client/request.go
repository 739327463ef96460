package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// call is one request to make.
type call struct {
	method string
	path   string // escaped
	query  url.Values
	header http.Header
	body   any // marshaled; nil: none
	// stream is a body instead, of so many bytes; negative: nobody knows.
	stream io.Reader
	bytes  int64
	repeat repeat
}

// repeat says when a request may be sent again.
type repeat int

const (
	never      repeat = iota
	whenUndone        // the daemon has certainly not begun
	always            // twice is as good as once
)

// maxAnswerBytes bounds a JSON answer. The largest is a page of runs.
const maxAnswerBytes = 256 << 20

// get is a request that reads.
func get(path string) call { return call{method: http.MethodGet, path: path, repeat: always} }

// call makes a request and decodes its JSON answer into out; nil: there is none.
func (c *Client) call(ctx context.Context, what call, out any) error {
	_, err := c.callHeader(ctx, what, out)
	return err
}

// callHeader is call for who needs the answer's header too.
func (c *Client) callHeader(ctx context.Context, what call, out any) (header http.Header, err error) {
	err = c.again(ctx, what.repeat, func() error {
		resp, err := c.sendOnce(ctx, what)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		header = resp.Header
		if out == nil {
			return nil
		}
		body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswerBytes+1))
		switch {
		case err != nil:
			return fmt.Errorf("%s %s: read answer: %w", what.method, what.path, err)
		case len(body) > maxAnswerBytes:
			return fmt.Errorf("%s %s: the answer is longer than %d bytes", what.method, what.path, maxAnswerBytes)
		}
		if err := json.Unmarshal(body, out); err != nil {
			return fmt.Errorf("%s %s: decode answer: %w", what.method, what.path, err)
		}
		return nil
	})
	return header, err
}

// send makes a request and returns its answer, whose body the caller closes.
func (c *Client) send(ctx context.Context, what call) (resp *http.Response, err error) {
	err = c.again(ctx, what.repeat, func() error {
		resp, err = c.sendOnce(ctx, what) //nolint:bodyclose // the caller does
		return err
	})
	return resp, err
}

// sendOnce makes a request. An answer without a 2xx status becomes an error.
func (c *Client) sendOnce(ctx context.Context, what call) (*http.Response, error) {
	var body io.Reader
	if what.body != nil {
		encoded, err := json.Marshal(what.body)
		if err != nil {
			return nil, fmt.Errorf("%s %s: encode body: %w", what.method, what.path, err)
		}
		body = bytes.NewReader(encoded)
	}
	if what.stream != nil {
		body = io.NopCloser(what.stream) // it stays its owner's to close
	}
	target := c.base + what.path
	if len(what.query) > 0 {
		target += "?" + what.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, what.method, target, body)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", what.method, what.path, err)
	}
	if what.stream != nil {
		if req.ContentLength = what.bytes; what.bytes == 0 {
			req.Body = http.NoBody // else 0 means that nobody knows
		}
	}
	req.Header.Set("Accept", "application/json")
	if what.body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	maps.Copy(req.Header, what.header)
	c.authorize(req.Header)
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, err // a *url.Error: names the method and the URL
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		defer resp.Body.Close()
		return nil, problemError(resp)
	}
	return resp, nil
}

// Waiting before the next try. With full jitter (each wait is random between nothing
// and a bound that doubles) clients that lost one daemon do not return all at once.
const (
	firstWait = 100 * time.Millisecond
	maxWait   = 5 * time.Second
	// maxRetryAfter is the longest wait that somebody else may ask for. Who asks for
	// more gets no other try: a person would think that nothing happens.
	maxRetryAfter = 2 * time.Minute
)

// again does what do does until that goes well, nothing helps, or c.tries are up.
func (c *Client) again(ctx context.Context, when repeat, do func() error) error {
	for tries := 1; ; tries++ {
		err := do()
		if err == nil || tries >= c.tries || ctx.Err() != nil || !when.allows(err) {
			return err
		}
		pause, ok := backoff(tries, err)
		if !ok {
			return err
		}
		if cause := wait(ctx, pause); cause != nil {
			return fmt.Errorf("%w, while waiting after: %w", cause, err)
		}
	}
}

// allows reports whether a request that had this error may be sent again.
func (r repeat) allows(err error) bool {
	switch {
	case r == never || !transient(err):
		return false
	case r == always:
		return true
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Status == http.StatusTooManyRequests
	}
	e, ok := errors.AsType[*net.OpError](err)
	return ok && e.Op == "dial"
}

// backoff returns how long to wait after so many tries in a row; false where that is
// too long.
func backoff(tries int, err error) (time.Duration, bool) {
	bound := min(firstWait<<min(tries-1, 20), maxWait)
	d := rand.N(bound) //nolint:gosec // jitter, not a secret
	if e, ok := errors.AsType[*Error](err); ok {
		return d + e.RetryAfter, e.RetryAfter <= maxRetryAfter
	}
	return d, true
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Paths.

func runPath(runID string) string { return "/v1/runs/" + escape(runID) }

func userPath(userID, below string) string { return "/v1/users/" + escape(userID) + below }

// escape encodes a path segment. Dots are encoded where the segment would else
// be one that proxies resolve.
func escape(segment string) string {
	if segment == "." || segment == ".." {
		return strings.ReplaceAll(segment, ".", "%2E")
	}
	return url.PathEscape(segment)
}
