package claude

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/anthropics/anthropic-sdk-go"

	"carrel/internal/door"
	"carrel/protocol"
)

// Retries of a request of which nothing was shown.
const (
	maxAttempts   = 6
	firstBackoff  = 500 * time.Millisecond // doubled each time
	longBackoff   = 16 * time.Second
	maxRetryAfter = 2 * time.Minute // what is told to wait longer fails, and says how long
)

// ask gets the model's next answer in the conversation as it stands, and shows
// it. A conversation that does not fit is summarised and asked again, once. With
// an error it gives the part of an answer that was shown.
func (r *run) ask(ctx context.Context) (*answer, error) {
	if r.isFull() {
		if _, err := r.summarize(ctx); err != nil {
			return nil, err
		}
	}
	a, err := r.request(ctx, r.params(r.conversation()), &r.shown)
	if f, ok := errors.AsType[*failure](err); ok && f.tooLong {
		shorter, err := r.summarize(ctx)
		if err != nil {
			return nil, err
		}
		if !shorter {
			return nil, protocol.Errorf(protocol.CodeTooLarge, "the message does not fit into the model's context window")
		}
		return r.request(ctx, r.params(r.conversation()), &r.shown)
	}
	return a, err
}

// request makes a request until an answer comes of which something was shown, or
// nothing but an error that will stay. It counts what the answers cost. Its errors
// are those of [run.stream], or an event's that could not be sent.
func (r *run) request(ctx context.Context, params anthropic.MessageNewParams, show *shown) (*answer, error) {
	for attempt := 1; ; attempt++ {
		show.nothing()
		a, err := r.stream(ctx, params, show)
		if usageErr := r.count(ctx, a.usage); err == nil {
			err = usageErr
		}
		if err == nil || ctx.Err() != nil || !show.nothing() || attempt == maxAttempts {
			return a, err
		}
		f, ok := errors.AsType[*failure](err)
		if !ok || !f.again || f.err.RetryAfter > maxRetryAfter {
			return a, err
		}
		pause := cmp.Or(f.err.RetryAfter, backoff(attempt))
		r.agent.options.Log.Info("model API: again after a pause", "run_id", r.ID, "attempt", attempt, "pause", pause, "error", f.err.Message)
		if err := r.agent.wait(ctx, pause); err != nil {
			return a, err
		}
	}
}

// count adds what an answer cost and tells the run's total so far.
func (r *run) count(ctx context.Context, u protocol.Usage) error {
	if total(u) == 0 {
		return nil
	}
	r.usage.InputTokens += u.InputTokens
	r.usage.OutputTokens += u.OutputTokens
	r.usage.CacheReadTokens += u.CacheReadTokens
	r.usage.CacheCreationTokens += u.CacheCreationTokens
	return r.Emit(context.WithoutCancel(ctx), protocol.EventUsage, r.usage)
}

// backoff is between half and all of what doubles with each attempt, so that
// runs that failed together do not come back together.
func backoff(attempt int) time.Duration {
	whole := min(firstBackoff<<(attempt-1), longBackoff)
	return whole/2 + rand.N(whole/2) //nolint:gosec // spreads requests; nothing is guessed by it
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

// failure is an error of the API, or of the way there.
type failure struct {
	err     *protocol.Error
	again   bool // the same request may do better
	tooLong bool // the conversation does not fit into a request
}

func (f *failure) Error() string { return f.err.Error() }

func (f *failure) Unwrap() error { return f.err }

// failureOf says what an error of the SDK means; begun tells that something of an
// answer had come.
func failureOf(err error, begun bool) *failure {
	if errors.Is(err, bufio.ErrTooLong) { // of one event: 32 MiB in the SDK
		return &failure{err: protocol.Errorf(protocol.CodeAgentError, "the model's answer makes no sense: %w", err)}
	}
	e, ok := errors.AsType[*anthropic.Error](err)
	switch {
	case !ok && begun:
		// Under it lies a reset stream of the door's, in words that help nobody.
		return &failure{err: protocol.Errorf(protocol.CodeAgentError, "the model's answer broke off before its end"), again: true}
	case !ok:
		return &failure{err: protocol.Errorf(protocol.CodeAgentError, "the model API cannot be reached: %w", err), again: true}
	}
	if code := protocol.Code(e.Response.Header.Get(door.CodeHeader)); code.Known() {
		return &failure{err: protocol.Errorf(code, "%s", messageOf(e))}
	}
	f := &failure{err: protocol.Errorf(protocol.CodeAgentError, "the model API answered %s", describe(e))}
	f.err.RetryAfter = retryAfter(e.Response)
	f.again = e.Response.Header.Get("X-Should-Retry") != "false" && passes(e)
	f.tooLong = e.StatusCode == http.StatusRequestEntityTooLarge ||
		e.StatusCode == http.StatusBadRequest && strings.Contains(strings.ToLower(e.RawJSON()), "prompt is too long")
	return f
}

// passes reports whether an error is one of those that pass. In the middle of a
// stream, whose status is 200, only the type tells.
func passes(e *anthropic.Error) bool {
	return e.StatusCode == http.StatusTooManyRequests || e.StatusCode >= http.StatusInternalServerError || slices.Contains(
		[]anthropic.ErrorType{
			anthropic.ErrorTypeOverloadedError, anthropic.ErrorTypeRateLimitError, anthropic.ErrorTypeAPIError, anthropic.ErrorTypeTimeoutError,
		}, e.Type())
}

// describe is an error of the API in a line: what it is, what it says, and the id
// by which the provider finds it.
func describe(e *anthropic.Error) string {
	text := fmt.Sprintf("%d %s: %s", e.StatusCode, e.Type(), messageOf(e))
	if e.RequestID != "" {
		text += " (request " + e.RequestID + ")"
	}
	return text
}

func messageOf(e *anthropic.Error) string {
	var body struct {
		Error struct{ Message string } `json:"error"`
	}
	message := e.RawJSON()
	if json.Unmarshal([]byte(message), &body) == nil && body.Error.Message != "" {
		message = body.Error.Message
	}
	const enough = 1000
	message, _ = cut(message, enough)
	return strings.ToValidUTF8(message, "\uFFFD")
}

// retryAfter reads RFC 9110 §10.2.3: seconds, or a date.
func retryAfter(r *http.Response) time.Duration {
	value := r.Header.Get("Retry-After")
	if seconds, err := strconv.ParseFloat(value, 64); err == nil && seconds > 0 {
		return time.Duration(min(seconds, 24*60*60) * float64(time.Second))
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(0, time.Until(at))
	}
	return 0
}
