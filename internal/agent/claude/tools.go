package claude

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/sync/errgroup"

	"carrel/internal/agent/session"
	"carrel/internal/tool"
	"carrel/protocol"
)

const (
	maxCalls    = 64 // of one answer; more are answered without being done
	maxParallel = 8  // at a time
	// maxResultBytes bounds one result, maxResultsBytes all of one answer's: some
	// 80 thousand tokens, which a window has room for once.
	maxResultBytes  = 64 << 10
	maxResultsBytes = 256 << 10
)

// answerCalls does what an answer asks for, side by side, and gives the results
// in its order. The last answer a run may have gets none of its calls done:
// nobody would look at what they give. An error is the host's, that takes no more
// events.
func (r *run) answerCalls(ctx context.Context, a *answer, last bool) ([]json.RawMessage, error) {
	calls := a.calls()
	results := make([]tool.Result, len(calls))
	var group errgroup.Group
	group.SetLimit(maxParallel)
	for i, b := range calls {
		if why := r.refuse(a, b, i, last); why != "" {
			results[i] = failed(why)
			continue
		}
		group.Go(func() error {
			results[i] = r.callTool(ctx, b.call())
			return nil
		})
	}
	_ = group.Wait() // the functions give none
	bound(results)

	blocks := make([]json.RawMessage, len(calls))
	for i, b := range calls {
		input := json.RawMessage("{}")
		if b.fault() == "" {
			input = b.whole()
		}
		done := protocol.ToolCall{ID: b.id, Name: b.name, Input: input, Result: results[i].Content, IsError: results[i].IsError}
		r.calls.add(done)
		blocks[i] = session.ResultBlock(b.id, done.Result, done.IsError)
		event := protocol.ToolCallResult{ID: done.ID, Name: done.Name, Result: done.Result, IsError: done.IsError}
		// A canceled run says of each call that began how it ended, too.
		if err := r.shown.event(context.WithoutCancel(ctx), protocol.EventToolCallResult, event); err != nil {
			return nil, err
		}
	}
	return blocks, nil
}

// refuse tells why a call is not even begun.
func (r *run) refuse(a *answer, b *block, number int, last bool) string {
	known := func(d tool.Definition) bool { return d.Name == b.name }
	switch fault := b.fault(); {
	case last:
		return fmt.Sprintf("Not done: the run may have %d answers, and this was the last.", r.maxTurns())
	case number >= maxCalls:
		return fmt.Sprintf("Not done: one answer may have %d calls.", maxCalls)
	case !slices.ContainsFunc(r.definitions, known):
		names := make([]string, len(r.definitions))
		for i, d := range r.definitions {
			names[i] = d.Name
		}
		return fmt.Sprintf("There is no tool %q. There are: %s.", b.name, strings.Join(names, ", "))
	case fault != "" && a.stop == stopMaxTokens:
		return fmt.Sprintf("Not done: the answer was cut off at its limit of %d tokens, in this call's input. Do it in several smaller calls.", r.maxTokens())
	case fault != "":
		return "Not done: " + fault
	}
	return ""
}

// callTool does one call, if the gate lets it through.
func (r *run) callTool(ctx context.Context, c tool.Call) tool.Result {
	note := ""
	if r.gate != nil {
		allowed, denial, beside, err := r.gate.Before(ctx, c)
		switch {
		case ctx.Err() != nil:
			return failed("Not done: the run was canceled.")
		case err != nil: // what cannot be decided is not allowed
			r.agent.options.Log.Warn("a tool call could not be decided", "run_id", r.ID, "tool", c.Name, "error", err)
			return failed("Not done: it could not be decided whether this is allowed.")
		case denial != "":
			return failed(denial)
		}
		c.Name, c.Input, note = allowed.Name, allowed.Input, beside
	}
	result := r.tools.Call(ctx, c, func(s tool.Stream, text string) error {
		return r.shown.text(ctx, text, func(piece string) (protocol.EventType, any) {
			return protocol.EventToolOutput, protocol.ToolOutput{ID: c.ID, Stream: string(s), Text: piece}
		})
	})
	if result.Denial != nil && r.Denied != nil {
		r.Denied(ctx, result.Denial)
	}
	if r.gate != nil {
		result = r.gate.After(ctx, c, result)
	}
	if note != "" {
		result.Content = strings.TrimSuffix(result.Content, "\n") + "\n\n" + note
	}
	return result
}

func failed(why string) tool.Result { return tool.Result{Content: why, IsError: true} }

// bound cuts results to what a conversation has room for. Where all together are
// too many, each gets its share.
func bound(results []tool.Result) {
	all := 0
	for i := range results {
		results[i].Content = shorten(results[i].Content, maxResultBytes)
		all += len(results[i].Content)
	}
	if all > maxResultsBytes {
		for i := range results {
			results[i].Content = shorten(results[i].Content, maxResultsBytes/len(results))
		}
	}
}

// shorten keeps the head and the tail of a text.
func shorten(text string, limit int) string {
	if len(text) > limit {
		o := tool.NewOutput(limit)
		o.WriteString(text)
		return o.String()
	}
	return strings.ToValidUTF8(text, string(utf8.RuneError))
}
