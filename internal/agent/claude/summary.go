package claude

import (
	"context"
	"encoding/json"
	"slices"
	"strings"

	"github.com/anthropics/anthropic-sdk-go"

	"carrel/internal/agent/session"
	"carrel/protocol"
)

const (
	// bytesPerToken is what English text and code have at least; other languages
	// have less, and where the guess is wrong the API says so.
	bytesPerToken = 4
	// attachedTokens is what an image or a short document costs, about.
	attachedTokens = 2000
	// maxSummaryTokens bounds a summary.
	maxSummaryTokens = 8 << 10
)

// summaryRequest asks for a summary of what stands above it.
const summaryRequest = `The conversation has become too long to go on with. Write a summary of everything above that takes its place: you will have nothing else of it. Say, in this order: what the user asked for, in their own words where they matter; what was decided and why; what was done, with the paths of files and the commands that worked; what failed and how; what is still open, and the next step. Write the summary alone, without calling tools.`

// isFull reports whether the next answer may not fit: a fifth of the window is
// kept for it, or what it may have, but at most half.
func (r *run) isFull() bool {
	window := r.agent.options.Window
	room := min(max(window/5, r.maxTokens()), window/2)
	return tokens(r.conversation()) > window-room
}

// tokens is how many a conversation has: what the API counted last, and a guess
// at what came since.
func tokens(conversation []session.Message) int64 {
	var sum int64
	for _, m := range conversation {
		sum += guess(m)
		if m.Tokens > 0 {
			sum = m.Tokens
		}
	}
	return sum
}

func guess(m session.Message) int64 {
	var sum int64
	for _, raw := range m.Content {
		var b session.AttachmentBlock
		if json.Unmarshal(raw, &b) == nil && b.Type == session.AttachmentType {
			sum += attachedTokens
			continue
		}
		sum += int64(len(raw)) / bytesPerToken
	}
	return sum
}

// summarize lets the model sum up the older part of the session, which then
// takes its place. The request begins as the last one did, tools and all, so most
// of it comes from the API's cache. shorter is false where nothing is older.
func (r *run) summarize(ctx context.Context) (shorter bool, err error) {
	messages := r.session.Messages()
	n := older(messages, r.agent.options.Window/8)
	if n == 0 && len(r.pending) > 0 && len(messages) > 1 {
		n = len(messages) // the run's own message stays in any case
	}
	if n == 0 {
		return false, nil
	}
	ask := session.Message{Role: session.User, Content: []json.RawMessage{session.TextBlock(summaryRequest)}}
	params := r.params(append(slices.Clip(messages[:n]), ask))
	params.MaxTokens = min(params.MaxTokens, maxSummaryTokens)
	if len(params.Tools) > 0 {
		none := anthropic.NewToolChoiceNoneParam()
		params.ToolChoice = anthropic.ToolChoiceUnionParam{OfNone: &none}
	}
	a, err := r.request(ctx, params, nil)
	if err != nil {
		return false, err
	}
	summary := strings.TrimSpace(a.text())
	if summary == "" {
		return false, protocol.Errorf(protocol.CodeAgentError, "the conversation is too long, and the model gave no summary of it (%s)", a.stop)
	}
	return true, r.session.Summarize(r.ID, summary, n)
}

// older is how many messages from the first on are to be summed up: so many that
// what is left has about keep tokens, but the last turn stays. What is left must
// not begin with the results of calls that are gone. 0 = there is nothing older.
func older(messages []session.Message, keep int64) int {
	n, left := 0, int64(0)
	for i := len(messages) - 1; i > 1; i-- { // one message alone is not worth it
		left += guess(messages[i])
		if n > 0 && left > keep {
			break
		}
		if messages[i].Role == session.Assistant {
			n = i
		}
	}
	return n
}
