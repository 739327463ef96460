// Package webhook is the host half of hooks: it posts to the URLs of the operator's
// file, which no sandbox knows, on behalf of workers.
package webhook

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"time"

	"carrel/protocol"
)

const (
	defaultTimeout = 10 * time.Second
	// maxAnswerBytes bounds a webhook's answer: a worker gets it in one line.
	maxAnswerBytes = 1 << 20
)

// Caller asks webhooks. It is safe for concurrent use and starts no goroutine that
// outlives a call, but for the connections it keeps; Close closes those.
type Caller struct {
	hooks  []protocol.Hook
	client *http.Client
	log    *slog.Logger

	traceparent func(context.Context) string
}

// errNoAnswer is what a worker is told of a connection that was not made or broke. The
// reason names host, address and resolver, which are part of the URL or behind it: it
// goes to the log alone.
var errNoAnswer = errors.New("it gave no answer; the daemon's log tells more")

// New checks the webhooks among hooks. traceparent gives the header that makes a request
// a part of its context's trace, "" for none; nil = none has one.
func New(hooks []protocol.Hook, log *slog.Logger, traceparent func(context.Context) string) (*Caller, error) {
	var faults []error
	for i, h := range hooks {
		if h.Webhook == "" {
			continue
		}
		u, err := url.Parse(h.Webhook)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			faults = append(faults, fmt.Errorf("permissions: hooks[%d]: webhook: must be an http or https URL", i)) // not shown: it may hold a secret
		}
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: 4, IdleConnTimeout: time.Minute, ForceAttemptHTTP2: true}
	if traceparent == nil {
		traceparent = func(context.Context) string { return "" }
	}
	return &Caller{hooks: slices.Clone(hooks), log: log, traceparent: traceparent, client: &http.Client{
		Transport: transport,
		// Not followed: where an answer leads is not what the operator wrote.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// Close closes idle connections.
func (c *Caller) Close() { c.client.CloseIdleConnections() }

// Call posts what a worker asks to the webhook that it names by number. Whatever
// the worker says, only a URL of the file is posted to, for an event of that hook,
// and the user is the one the worker is bound to. Errors: CodeNotFound where the
// worker names no webhook, CodeAgentError where that gave no answer.
func (c *Caller) Call(ctx context.Context, userID string, p protocol.HookParams) (protocol.HookResult, error) {
	var r protocol.HookResult
	if p.Hook < 0 || p.Hook >= len(c.hooks) || c.hooks[p.Hook].Webhook == "" || c.hooks[p.Hook].Event != p.Event {
		return r, protocol.Errorf(protocol.CodeNotFound, "hook: %d is no webhook for %.20q", p.Hook, p.Event)
	}
	h := c.hooks[p.Hook]
	p.UserID = userID
	timeout := defaultTimeout
	if h.TimeoutSeconds > 0 {
		timeout = time.Duration(h.TimeoutSeconds * float64(time.Second))
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	r, err := c.post(ctx, h.Webhook, p)
	if err != nil {
		return protocol.HookResult{}, protocol.Errorf(protocol.CodeAgentError, "webhook %d: %w", p.Hook, err)
	}
	return r, nil
}

func (c *Caller) post(ctx context.Context, to string, p protocol.HookParams) (r protocol.HookResult, err error) {
	body, err := json.Marshal(p)
	if err != nil {
		return r, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(body))
	if err != nil {
		return r, err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Accept", "application/json")
	request.Header.Set("User-Agent", "carrel")
	if trace := c.traceparent(ctx); trace != "" {
		request.Header.Set("Traceparent", trace)
	}
	response, err := c.client.Do(request)
	if err != nil {
		return r, c.noAnswer(ctx, p.Hook, err)
	}
	defer func() { _ = response.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxAnswerBytes+1))
	switch {
	case err != nil:
		return r, c.noAnswer(ctx, p.Hook, err)
	case response.StatusCode == http.StatusNoContent:
		return r, nil
	case response.StatusCode != http.StatusOK:
		return r, fmt.Errorf("it answered %d", response.StatusCode)
	case len(answer) > maxAnswerBytes:
		return r, fmt.Errorf("its answer is longer than %d bytes", maxAnswerBytes)
	}
	if err := json.Unmarshal(answer, &r); err != nil {
		return r, fmt.Errorf("its answer: %w", err)
	}
	return r, nil
}

func (c *Caller) noAnswer(ctx context.Context, hook int, err error) error {
	// Without the URL, which net/http puts into its errors: it may hold a secret.
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err
	}
	c.log.WarnContext(ctx, "a webhook gave no answer", "hook", hook, "error", err)
	return errNoAnswer
}
