package client

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"

	"carrel/protocol"
)

// Sandboxes lists the live pool.
func (c *Client) Sandboxes(ctx context.Context) (protocol.Sandboxes, error) {
	var live protocol.Sandboxes
	err := c.call(ctx, get("/v1/sandboxes"), &live)
	return live, err
}

// Sandbox shows one user's sandbox.
func (c *Client) Sandbox(ctx context.Context, userID string) (protocol.SandboxInfo, error) {
	var info protocol.SandboxInfo
	err := c.call(ctx, get(userPath(userID, "/sandbox")), &info)
	return info, err
}

// RetireSandbox ends a user's worker; the next run gets another. The user's files stay.
func (c *Client) RetireSandbox(ctx context.Context, userID string) error {
	return c.call(ctx, call{method: http.MethodDelete, path: userPath(userID, "/sandbox"), repeat: whenUndone}, nil)
}

// PurgeSandbox ends a user's worker and removes all of the user's files, sessions
// included, for good.
func (c *Client) PurgeSandbox(ctx context.Context, userID string) error {
	return c.call(ctx, call{
		method: http.MethodDelete, path: userPath(userID, "/sandbox"), query: url.Values{"purge": {"true"}}, repeat: whenUndone,
	}, nil)
}

// System shows the daemon.
func (c *Client) System(ctx context.Context) (protocol.System, error) {
	var system protocol.System
	err := c.call(ctx, get("/v1/system"), &system)
	return system, err
}

// Health is what the daemon tells of itself to whoever asks.
type Health struct {
	Status  string `json:"status"`            // "ok", or "ready"
	Version string `json:"version,omitempty"` // none where there is a sign-in
}

// Health tells that the daemon lives.
func (c *Client) Health(ctx context.Context) (Health, error) {
	var health Health
	err := c.call(ctx, get("/healthz"), &health)
	return health, err
}

// Ready tells that a run could start; if none could, the error tells why. It asks once
// and repeats nothing: the answer is about now.
func (c *Client) Ready(ctx context.Context) (Health, error) {
	var health Health
	err := c.call(ctx, call{method: http.MethodGet, path: "/readyz"}, &health)
	return health, err
}

// OpenAPI gives the daemon's description of its API, an OpenAPI 3.1 document.
func (c *Client) OpenAPI(ctx context.Context) (json.RawMessage, error) {
	var document json.RawMessage
	err := c.call(ctx, get("/openapi.json"), &document)
	return document, err
}

// Metrics opens the daemon's figures, in Prometheus' text format. The caller closes it.
func (c *Client) Metrics(ctx context.Context) (io.ReadCloser, error) {
	what := get("/metrics")
	what.header = http.Header{"Accept": {"text/plain"}}
	resp, err := c.send(ctx, what)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}
