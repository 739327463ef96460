package client

import (
	"context"
	"crypto/rand"
	"fmt"
	"iter"
	"math"
	"net/http"
	"net/url"
	"strconv"

	"carrel/protocol"
)

// ExecuteOptions adjusts one [Client.Execute].
type ExecuteOptions struct {
	// IdempotencyKey makes a repeated Execute answer with the first one's run, for
	// 24 hours. It is 1 to 255 visible ASCII characters. Left out, each call makes
	// one of its own, so that a try that the client repeats starts no second run;
	// a caller that may itself be repeated (a job of a queue) gives its own.
	IdempotencyKey string
}

// header asks for an answer in one form, under the call's key.
func (o ExecuteOptions) header(name, value string) http.Header {
	key := o.IdempotencyKey
	if key == "" {
		key = rand.Text()
	}
	return http.Header{name: {value}, "Idempotency-Key": {key}}
}

const executePath = "/v1/execute"

// Execute starts a run and returns at once; [Client.Events] follows it.
func (c *Client) Execute(ctx context.Context, req protocol.ExecuteRequest, opts ExecuteOptions) (protocol.Run, error) {
	var run protocol.Run
	err := c.call(ctx, call{
		method: http.MethodPost, path: executePath, header: opts.header("Prefer", "respond-async"), body: req, repeat: always,
	}, &run)
	return run, err
}

// ExecuteStream starts a run and gives its events as [Client.Events] does. It starts
// one run at most, however often the connection is lost. Each walk over the iterator is
// a call of its own: it starts another run, unless opts has a key.
func (c *Client) ExecuteStream(ctx context.Context, req protocol.ExecuteRequest, opts ExecuteOptions) iter.Seq2[protocol.Event, error] {
	return func(yield func(protocol.Event, error) bool) {
		f := follower{client: c, yield: yield, start: &call{
			method: http.MethodPost, path: executePath, header: opts.header("Accept", eventStream), body: req,
		}}
		if err := f.follow(ctx); err != nil {
			yield(protocol.Event{}, fmt.Errorf("execute: %w", err))
		}
	}
}

// ExecuteWait starts a run, waits for its end and returns its result; an [*Error] with
// its RunID if it ended in one. It holds no single request open for the time of the run
// that a proxy could give up: see [Client.Wait].
func (c *Client) ExecuteWait(ctx context.Context, req protocol.ExecuteRequest, opts ExecuteOptions) (protocol.Result, error) {
	run, err := c.Execute(ctx, req, opts)
	if err != nil {
		return protocol.Result{}, err
	}
	return c.Wait(ctx, run.RunID)
}

// Wait waits for a run's end and returns its result; an [*Error] with its RunID if it
// ended in one. A lost connection is made again.
func (c *Client) Wait(ctx context.Context, runID string) (protocol.Result, error) {
	// After the largest seq there is no event: the stream brings its end alone.
	f := follower{client: c, runID: runID, last: math.MaxInt64}
	if err := f.follow(ctx); err != nil {
		return protocol.Result{}, fmt.Errorf("wait for %s: %w", runID, err)
	}
	switch {
	case f.run.Error != nil:
		return protocol.Result{}, endedError(runID, *f.run.Error)
	case f.run.Result != nil:
		return *f.run.Result, nil
	}
	return protocol.Result{}, fmt.Errorf("run %s is %s but has neither result nor error", runID, f.run.Status)
}

// Run shows a run.
func (c *Client) Run(ctx context.Context, runID string) (protocol.Run, error) {
	var run protocol.Run
	err := c.call(ctx, get(runPath(runID)), &run)
	return run, err
}

// Runs gives the runs that q selects, the newest first, and reads one page after the
// other as they are needed. q.Limit is the size of a page; 0: the daemon's own. An error
// is given once and is the last.
func (c *Client) Runs(ctx context.Context, q protocol.RunQuery) iter.Seq2[protocol.Run, error] {
	return pages(q.Cursor, func(cursor string) ([]protocol.Run, string, error) {
		q.Cursor = cursor
		page, err := c.RunPage(ctx, q)
		return page.Runs, page.NextCursor, err
	})
}

// RunPage lists one page of the runs that q selects, from q.Cursor on.
func (c *Client) RunPage(ctx context.Context, q protocol.RunQuery) (protocol.RunPage, error) {
	what := get("/v1/runs")
	what.query = url.Values{}
	for name, value := range map[string]string{
		"user_id": q.UserID, "session_id": q.SessionID, "status": string(q.Status), "cursor": q.Cursor,
	} {
		if value != "" {
			what.query.Set(name, value)
		}
	}
	if q.Limit != 0 {
		what.query.Set("limit", strconv.Itoa(q.Limit))
	}
	var page protocol.RunPage
	err := c.call(ctx, what, &page)
	return page, err
}

// pages walks over pages. A cursor that leads to itself is an error: the walk would
// have no end.
func pages[T any](cursor string, read func(cursor string) (items []T, next string, err error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		for at := cursor; ; {
			items, next, err := read(at)
			if err == nil && next != "" && next == at {
				err = fmt.Errorf("the page at cursor %q names itself as the next", at)
			}
			if err != nil {
				yield(none, err)
				return
			}
			for _, item := range items {
				if !yield(item, nil) {
					return
				}
			}
			if at = next; at == "" {
				return
			}
		}
	}
}

// Cancel asks a run to end and shows it; it may still be ending.
func (c *Client) Cancel(ctx context.Context, runID string) (protocol.Run, error) {
	var run protocol.Run
	err := c.call(ctx, call{method: http.MethodPost, path: runPath(runID) + "/cancel", repeat: always}, &run)
	return run, err
}

// Approve answers a run that asks whether a tool may be used.
func (c *Client) Approve(ctx context.Context, runID, approvalID string, d protocol.ApprovalDecision) error {
	var resolved protocol.ApprovalResolved
	path := runPath(runID) + "/approvals/" + escape(approvalID)
	return c.call(ctx, call{method: http.MethodPost, path: path, body: d, repeat: whenUndone}, &resolved)
}
