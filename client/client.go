// Package client talks to carrel's HTTP API. A [Client] starts no goroutine
// that outlives a call, and is safe for concurrent use.
//
// Errors that the daemon answers with are [*protocol.Error].
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	"carrel/protocol"
)

// Options adjusts [New]. The zero value is sane.
type Options struct {
	Key Key // sent as a bearer token; empty: none
	// HTTPClient sends the requests. It must have no Timeout, which would cut
	// event streams. nil: one of the client's own that follows no redirects.
	HTTPClient *http.Client
}

// Key is an API key. It prints as "[redacted]".
type Key string

const redacted = "[redacted]"

func (Key) String() string { return redacted }

// GoString implements fmt.GoStringer, for %#v.
func (Key) GoString() string { return redacted }

// MarshalText implements encoding.TextMarshaler, for JSON and slog.
func (Key) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// Client is one daemon's API.
type Client struct {
	base string // scheme, host and prefix, without a slash at the end
	http *http.Client
	// authorize adds the key. A closure, since fmt prints unexported fields
	// without asking their String.
	authorize func(http.Header)
}

// maxAnswerBytes bounds a JSON answer. The largest is a page of runs.
const maxAnswerBytes = 256 << 20

// New makes a client of the daemon at baseURL ("http://127.0.0.1:8642").
func New(baseURL string, opts Options) (*Client, error) {
	u, err := url.Parse(baseURL)
	if err != nil {
		return nil, fmt.Errorf("daemon's URL: %w", err)
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, errors.New("daemon's URL: must begin with http://HOST or https://HOST")
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("daemon's URL: must not hold a user, a query or a fragment")
	}
	if strings.ContainsFunc(string(opts.Key), func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, errors.New("API key: must be printable ASCII without spaces")
	}
	c := &Client{base: strings.TrimRight(u.String(), "/"), http: opts.HTTPClient, authorize: func(http.Header) {}}
	if opts.Key != "" {
		c.authorize = func(h http.Header) { h.Set("Authorization", "Bearer "+string(opts.Key)) }
	}
	if c.http == nil {
		c.http = newHTTPClient()
	}
	return c, nil
}

// newHTTPClient has time limits for connecting alone: a run may take long to
// answer. A redirect is an answer like any other, since following one could
// carry the message elsewhere.
func newHTTPClient() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			Proxy:               http.ProxyFromEnvironment,
			TLSHandshakeTimeout: 10 * time.Second,
			IdleConnTimeout:     90 * time.Second,
			MaxIdleConnsPerHost: 16,
			// How long an upload waits to be asked for; then it is sent all the same.
			ExpectContinueTimeout: 5 * time.Second,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Close gives up the idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// ExecuteOptions adjusts one [Client.Execute].
type ExecuteOptions struct {
	// IdempotencyKey makes a repeated Execute answer with the first one's run.
	// It is 1 to 255 visible ASCII characters.
	IdempotencyKey string
}

// Execute starts a run and returns at once; [Client.Events] follows it.
func (c *Client) Execute(ctx context.Context, req protocol.ExecuteRequest, opts ExecuteOptions) (protocol.Run, error) {
	header := http.Header{"Prefer": {"respond-async"}}
	if opts.IdempotencyKey != "" {
		header.Set("Idempotency-Key", opts.IdempotencyKey)
	}
	var run protocol.Run
	err := c.call(ctx, call{method: http.MethodPost, path: "/v1/execute", header: header, body: req}, &run)
	return run, err
}

// Run shows a run.
func (c *Client) Run(ctx context.Context, runID string) (protocol.Run, error) {
	var run protocol.Run
	err := c.call(ctx, call{method: http.MethodGet, path: runPath(runID)}, &run)
	return run, err
}

// Cancel asks a run to end and shows it; it may still be ending.
func (c *Client) Cancel(ctx context.Context, runID string) (protocol.Run, error) {
	var run protocol.Run
	err := c.call(ctx, call{method: http.MethodPost, path: runPath(runID) + "/cancel"}, &run)
	return run, err
}

// Approve answers a run that asks whether a tool may be used.
func (c *Client) Approve(ctx context.Context, runID, approvalID string, d protocol.ApprovalDecision) error {
	var resolved protocol.ApprovalResolved
	path := runPath(runID) + "/approvals/" + url.PathEscape(approvalID)
	return c.call(ctx, call{method: http.MethodPost, path: path, body: d}, &resolved)
}

// Sandboxes lists the live pool.
func (c *Client) Sandboxes(ctx context.Context) (protocol.Sandboxes, error) {
	var live protocol.Sandboxes
	err := c.call(ctx, call{method: http.MethodGet, path: "/v1/sandboxes"}, &live)
	return live, err
}

// System shows the daemon.
func (c *Client) System(ctx context.Context) (protocol.System, error) {
	var system protocol.System
	err := c.call(ctx, call{method: http.MethodGet, path: "/v1/system"}, &system)
	return system, err
}

func runPath(runID string) string { return "/v1/runs/" + escape(runID) }

// escape encodes a path segment. Dots are encoded where the segment would else
// be one that proxies resolve.
func escape(segment string) string {
	if segment == "." || segment == ".." {
		return strings.ReplaceAll(segment, ".", "%2E")
	}
	return url.PathEscape(segment)
}

// call is one request to make.
type call struct {
	method string
	path   string // escaped
	header http.Header
	body   any // marshaled; nil: none
	// stream is a body instead, of so many bytes; negative: nobody knows.
	stream io.Reader
	bytes  int64
}

// call makes a request and decodes its JSON answer into out.
func (c *Client) call(ctx context.Context, what call, out any) error {
	resp, err := c.send(ctx, what)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswerBytes+1))
	if err != nil {
		return fmt.Errorf("%s %s: read answer: %w", what.method, what.path, err)
	}
	if len(body) > maxAnswerBytes {
		return fmt.Errorf("%s %s: the answer is longer than %d bytes", what.method, what.path, maxAnswerBytes)
	}
	if err := json.Unmarshal(body, out); err != nil {
		return fmt.Errorf("%s %s: decode answer: %w", what.method, what.path, err)
	}
	return nil
}

// send makes a request and returns its answer, whose body the caller closes. An
// answer without a 2xx status becomes an error.
func (c *Client) send(ctx context.Context, what call) (*http.Response, error) {
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
	req, err := http.NewRequestWithContext(ctx, what.method, c.base+what.path, body)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", what.method, what.path, err)
	}
	if what.stream != nil {
		if req.ContentLength = what.bytes; what.bytes == 0 {
			req.Body = http.NoBody // else 0 means that nobody knows
		}
	}
	req.Header.Set("Accept", "application/json")
	if body != nil {
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

// maxProblemBytes bounds a problem document.
const maxProblemBytes = 64 << 10

// problemError makes an error of an answer that is none of success. What is no
// problem document comes from something between us and the daemon.
func problemError(resp *http.Response) error {
	media, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if media == protocol.ProblemMediaType {
		var p protocol.Problem
		err := json.NewDecoder(io.LimitReader(resp.Body, maxProblemBytes)).Decode(&p)
		if err == nil && p.Code.Known() {
			retry := time.Duration(p.RetryAfter * float64(time.Second))
			return &protocol.Error{Code: p.Code, Message: p.Detail, RetryAfter: max(0, retry)}
		}
	}
	return protocol.Errorf(codeOfStatus(resp.StatusCode), "%s %s: answered %s, which is no answer of carrel's",
		resp.Request.Method, resp.Request.URL.Redacted(), resp.Status)
}

// codeOfStatus reads a foreign answer as one of ours, roughly.
func codeOfStatus(status int) protocol.Code {
	switch {
	case status == http.StatusUnauthorized:
		return protocol.CodeUnauthorized
	case status == http.StatusForbidden:
		return protocol.CodeForbidden
	case status == http.StatusNotFound:
		return protocol.CodeNotFound
	case status == http.StatusTooManyRequests:
		return protocol.CodeRateLimited
	case status >= 400 && status < 500:
		return protocol.CodeInvalidRequest
	default:
		return protocol.CodeInternal
	}
}
