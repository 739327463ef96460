package claude

import (
	"context"
	"encoding/json"

	"carrel/internal/agent/session"
	"carrel/internal/tool"
)

// Stop reasons of a result. The others are the API's own: end_turn, max_tokens,
// stop_sequence, refusal, model_context_window_exceeded.
const (
	stopMaxTurns = "max_turns"
	// What the loop looks at of the API's.
	stopRefusal   = "refusal"
	stopPauseTurn = "pause_turn"
	stopMaxTokens = "max_tokens"
)

// loop asks the model until it has no more calls of tools, or may not go on. A
// turn comes into the transcript whole, at its end: a message that the API
// refuses is in none, and cannot make every later run of its session fail too.
func (r *run) loop(ctx context.Context) (stop string, err error) {
	message, err := r.userMessage()
	if err != nil {
		return "", err
	}
	r.pending = []session.Message{message}
	for turn := 1; ; turn++ {
		a, err := r.ask(ctx)
		if err != nil {
			r.keepShown(a)
			return "", err
		}
		last := turn == r.maxTurns()
		going, err := r.endTurn(ctx, a, last)
		switch {
		case err != nil:
			return "", err
		case !going:
			return a.stop, nil
		case last:
			return stopMaxTurns, nil
		}
	}
}

// endTurn does what an answer asks for and writes the turn down. going tells
// that the model wants to go on.
func (r *run) endTurn(ctx context.Context, a *answer, last bool) (going bool, err error) {
	r.said(a)
	if a.stop == stopRefusal {
		// The API's advice: what was refused is refused again as long as it is in
		// the conversation.
		return false, nil
	}
	turn := r.pending
	if content := a.content(); len(content) > 0 {
		turn = append(turn, session.Message{Role: session.Assistant, Content: content, Tokens: a.contextTokens()})
	}
	if len(a.calls()) > 0 {
		results, err := r.answerCalls(ctx, a, last)
		if err != nil {
			return false, err
		}
		turn = append(turn, session.Message{Role: session.User, Content: results, Dir: r.tools.Dir()})
		going = true
	}
	if err := r.session.Append(r.ID, turn...); err != nil {
		return false, err
	}
	r.pending = nil
	if err := ctx.Err(); err != nil {
		return false, err
	}
	return going || a.stop == stopPauseTurn, nil
}

// keepShown writes down what the user has seen of an answer that broke off, so
// that "go on" means something in the next run.
func (r *run) keepShown(a *answer) {
	if a == nil || a.text() == "" {
		return
	}
	turn := append(r.pending, session.Message{Role: session.Assistant, Content: []json.RawMessage{session.TextBlock(a.text())}})
	if err := r.session.Append(r.ID, turn...); err != nil {
		r.agent.options.Log.Warn("an answer that broke off is not in the transcript", "run_id", r.ID, "error", err)
	}
}

// said takes an answer's text as the run's content. Text before a call of a tool
// is no answer yet: the last one counts. A paused one goes on in the next.
func (r *run) said(a *answer) {
	if text := a.text(); text != "" {
		if !r.paused {
			r.content = tool.NewOutput(maxContentBytes)
		}
		r.content.WriteString(text)
	}
	r.paused = a.stop == stopPauseTurn
}

// userMessage is the run's own message; the attachments come first.
func (r *run) userMessage() (session.Message, error) {
	m := session.Message{Role: session.User}
	for _, a := range r.Attachments {
		block, err := r.attach(a)
		if err != nil {
			return session.Message{}, err
		}
		m.Content = append(m.Content, block)
	}
	m.Content = append(m.Content, session.TextBlock(r.Message))
	return m, nil
}
