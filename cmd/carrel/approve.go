package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"carrel/protocol"
)

// maxShownInput bounds what a question shows of a tool's input.
const maxShownInput = 2 << 10

// questions puts a run's approvals to whoever sits at the terminal, one after the
// other. Where there is no terminal, and no daemon that others could answer through,
// each is denied at once: nobody would ever answer.
type questions struct {
	b        backend
	screen   *screen
	terminal io.Reader // nil = nobody to ask
	isDaemon bool
	asked    chan protocol.ApprovalRequested
}

// take takes an event in, and returns at once.
func (q *questions) take(ctx context.Context, ev protocol.Event) error {
	switch {
	case ev.Type == protocol.EventApprovalRequested:
		return q.ask(ctx, ev)
	case ev.Type == protocol.EventApprovalResolved && q.terminal != nil:
		q.screen.release()
	}
	return nil
}

func (q *questions) ask(ctx context.Context, ev protocol.Event) error {
	var question protocol.ApprovalRequested
	if err := json.Unmarshal(ev.Data, &question); err != nil {
		return fmt.Errorf("decode %s: %w", ev.Type, err)
	}
	if q.terminal != nil {
		q.screen.hold() // a person types below what is shown
		select {
		case q.asked <- question:
		case <-ctx.Done():
		}
		return nil
	}
	if q.isDaemon {
		return q.screen.line("", fmt.Sprintf("carrel: %s waits for approval %s of run %s until %s",
			oneLine(question.Tool), oneLine(question.ApprovalID), ev.RunID, question.ExpiresAt.Local().Format("15:04:05")))
	}
	return q.b.Approve(ctx, ev.RunID, question.ApprovalID, protocol.ApprovalDecision{
		Decision: protocol.Deny, Reason: "standard input is no terminal: nobody can be asked",
	})
}

// serve asks until ctx ends or the terminal does. A read of a terminal cannot be
// taken back, so it may outlive ctx, until the program ends.
func (q *questions) serve(ctx context.Context, runID string) {
	lines := bufio.NewReader(q.terminal)
	for {
		var question protocol.ApprovalRequested
		select {
		case question = <-q.asked:
		case <-ctx.Done():
			return
		}
		_, _ = fmt.Fprintf(&q.screen.stderr, "\n%s wants to run:\n%s\n%sallow? [y/N] ", oneLine(question.Tool), shown(question.Input), because(question.Reason))
		line, err := lines.ReadString('\n')
		q.screen.typed()
		if err != nil && line == "" {
			return // the end of input: silence denies
		}
		d := protocol.ApprovalDecision{Decision: protocol.Deny, Reason: "the user said no"}
		switch strings.ToLower(strings.TrimSpace(line)) {
		case "y", "yes":
			d = protocol.ApprovalDecision{Decision: protocol.Allow}
		}
		err = q.b.Approve(ctx, runID, question.ApprovalID, d)
		if err != nil && !errors.Is(err, context.Canceled) {
			_ = q.screen.line(red, fmt.Sprintf("carrel: %v", err))
		}
	}
}

// shown makes an input readable, and harmless: a model wrote it, and a terminal
// obeys control characters.
func shown(input json.RawMessage) string {
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, input, "  ", "  "); err != nil {
		pretty.Reset()
		pretty.Write(input)
	}
	text := printable(pretty.String())
	if len(text) > maxShownInput {
		text = cut(text, maxShownInput) + fmt.Sprintf("… (%d bytes)", len(input))
	}
	return "  " + text
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	text := printable(reason)
	if len(text) > maxShownInput { // a longer one would push the input out of sight
		text = cut(text, maxShownInput) + "…"
	}
	return text + "\n"
}

// cut shortens a text to size bytes at most, and leaves no half of a character: its
// bytes by themselves a terminal may take for a control character (0x9b is one).
func cut(text string, size int) string { return strings.ToValidUTF8(text[:size], "") }

// oneLine makes of a name, which a worker made up, one that cannot pass for more.
func oneLine(name string) string { return strings.ReplaceAll(printable(name), "\n", "\ufffd") }
