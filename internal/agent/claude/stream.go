package claude

import (
	"context"
	"encoding/json"
	"io"

	"github.com/anthropics/anthropic-sdk-go"
	"github.com/anthropics/anthropic-sdk-go/option"

	"carrel/internal/door"
	"carrel/protocol"
)

// stream makes one request and reads its answer, showing it as it comes. With an
// error it gives what had come; show nil shows nothing.
func (r *run) stream(ctx context.Context, params anthropic.MessageNewParams, show *shown) (*answer, error) {
	a := &answer{}
	events := r.agent.client.Messages.NewStreaming(ctx, params, option.WithHeader(door.RunHeader, r.ID))
	defer func() { _ = events.Close() }()
	for events.Next() {
		e := events.Current()
		if err := a.take(ctx, &e, show); err != nil {
			return a, err
		}
	}
	err := events.Err()
	switch {
	case a.whole: // what becomes of the connection after that is nobody's concern
		return a, nil
	case err == nil:
		err = io.ErrUnexpectedEOF
	}
	return a, failureOf(err, a.begun)
}

// take adds one event to the answer.
func (a *answer) take(ctx context.Context, e *anthropic.MessageStreamEventUnion, show *shown) error {
	switch e.Type {
	case "message_start":
		a.begun = true
		u := e.Message.Usage
		a.usage = protocol.Usage{
			InputTokens: u.InputTokens, OutputTokens: u.OutputTokens,
			CacheReadTokens: u.CacheReadInputTokens, CacheCreationTokens: u.CacheCreationInputTokens,
		}
	case "content_block_start":
		return a.begin(ctx, e, show)
	case "content_block_delta":
		return a.grow(ctx, e, show)
	case "message_delta":
		a.stop = string(e.Delta.StopReason)
		a.usage.OutputTokens = e.Usage.OutputTokens // counts are of the whole answer
		if e.Usage.JSON.InputTokens.Valid() {
			a.usage.InputTokens = e.Usage.InputTokens
		}
		if e.Usage.JSON.CacheReadInputTokens.Valid() {
			a.usage.CacheReadTokens = e.Usage.CacheReadInputTokens
		}
		if e.Usage.JSON.CacheCreationInputTokens.Valid() {
			a.usage.CacheCreationTokens = e.Usage.CacheCreationInputTokens
		}
	case "message_stop":
		a.whole = true
	}
	return nil // an event of another kind is one that a later API may send
}

func (a *answer) begin(ctx context.Context, e *anthropic.MessageStreamEventUnion, show *shown) error {
	c := &e.ContentBlock
	b := &block{kind: c.Type, id: c.ID, name: c.Name, raw: json.RawMessage(c.RawJSON())}
	if err := a.open(e.Index, b); err != nil {
		return err
	}
	switch b.kind {
	case "text":
		return a.addAndShow(ctx, b, c.Text, show)
	case "thinking":
		b.signature = c.Signature
		return a.addAndShow(ctx, b, c.Thinking, show)
	case "tool_use":
		return show.event(ctx, protocol.EventToolCallStart, protocol.ToolCallStart{ID: b.id, Name: b.name})
	}
	return nil
}

func (a *answer) grow(ctx context.Context, e *anthropic.MessageStreamEventUnion, show *shown) error {
	b, err := a.at(e.Index)
	if err != nil {
		return err
	}
	switch e.Delta.Type {
	case "text_delta":
		return a.addAndShow(ctx, b, e.Delta.Text, show)
	case "thinking_delta":
		return a.addAndShow(ctx, b, e.Delta.Thinking, show)
	case "signature_delta":
		b.signature = e.Delta.Signature
	case "input_json_delta":
		return show.text(ctx, a.addInput(b, e.Delta.PartialJSON), func(piece string) (protocol.EventType, any) {
			return protocol.EventToolCallArgs, protocol.ToolCallArgs{ID: b.id, Delta: piece}
		})
	}
	return nil
}

func (a *answer) addAndShow(ctx context.Context, b *block, text string, show *shown) error {
	if err := a.addText(b, text); err != nil {
		return err
	}
	return show.text(ctx, text, func(piece string) (protocol.EventType, any) {
		if b.kind == "thinking" {
			return protocol.EventThinkingDelta, protocol.ThinkingDelta{Text: piece}
		}
		return protocol.EventTextDelta, protocol.TextDelta{Text: piece}
	})
}
