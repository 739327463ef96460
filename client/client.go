package client

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Options adjusts [New]. The zero value is sane.
type Options struct {
	Key Key // sent as a bearer token; empty: none
	// HTTPClient sends the requests. It must have no Timeout, which would cut
	// event streams. nil: one of the client's own that follows no redirects.
	HTTPClient *http.Client
	// Tries is how often a request is sent at most, the first time included, where
	// waiting may help and a repetition does no harm; see the package's
	// documentation. 0 means 4; 1: never again. Following events has a bound of
	// its own.
	Tries int
}

// defaultTries last 0.7 s at most, a Retry-After aside: a person may be waiting.
const defaultTries = 4

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
	// tries is Options.Tries.
	tries int
	// authorize adds the key. A closure, since fmt prints unexported fields
	// without asking their String.
	authorize func(http.Header)
}

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
	if opts.Tries < 0 {
		return nil, errors.New("number of tries: must not be negative")
	}
	c := &Client{
		base:      strings.TrimRight(u.String(), "/"),
		http:      opts.HTTPClient,
		tries:     cmp.Or(opts.Tries, defaultTries),
		authorize: func(http.Header) {},
	}
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
			DialContext:         (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
			ForceAttemptHTTP2:   true, // which a DialContext of our own turns off else
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
