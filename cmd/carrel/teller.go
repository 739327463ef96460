package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"carrel/protocol"
)

const (
	// maxToolCalls is how many calls at a time a teller knows the input of, and
	// maxToolInput how much of each: a worker may say anything.
	maxToolCalls = 256
	maxToolInput = 16 << 10
	// maxBrief bounds what a folded call shows of its input, and of an error.
	maxBrief = 80
)

// teller shows a person the events of a run: the text as it comes, and a line for each
// call of a tool.
type teller struct {
	screen    *screen
	isVerbose bool // calls are unfolded: their whole input and result
	doing     string
	calls     []*toolCall // going, in the order of their starts
}

type toolCall struct {
	id, name string
	input    []byte
	began    time.Time // the model has said the last of its input
	last     string    // line of its output
}

// told is what there may be in an event's data.
type told struct {
	Text     string `json:"text"`
	Stream   string `json:"stream"`
	Agent    string `json:"agent"`
	ID       string `json:"id"`
	Name     string `json:"name"`
	Delta    string `json:"delta"`
	Result   string `json:"result"`
	IsError  bool   `json:"is_error"`
	Tool     string `json:"tool"`
	Decision string `json:"decision"`
	Reason   string `json:"reason"`
	Content  string `json:"content"`
	ExitCode *int   `json:"exit_code"`
}

// show shows an event.
func (t *teller) show(ev protocol.Event) error {
	var d told
	if err := json.Unmarshal(ev.Data, &d); err != nil {
		return fmt.Errorf("decode %s: %w", ev.Type, err)
	}
	err := t.take(ev, d)
	t.screen.set(t.state())
	return err
}

func (t *teller) take(ev protocol.Event, d told) error {
	switch ev.Type {
	case protocol.EventRunStarted:
		t.doing = "waiting for the model"
		if d.Agent == "shell" {
			t.doing = "running the script"
		}
	case protocol.EventTextDelta:
		return t.text(d)
	case protocol.EventThinkingDelta:
		t.doing = "thinking"
	case protocol.EventToolCallStart:
		if len(t.calls) < maxToolCalls {
			t.calls = append(t.calls, &toolCall{id: d.ID, name: d.Name, began: ev.Time})
		}
		if t.screen.isLive { // the model's sentence has no end, and the call may take long
			return t.screen.fresh()
		}
	case protocol.EventToolCallArgs:
		if c := t.call(d.ID); c != nil {
			c.began = ev.Time
			c.input = append(c.input, d.Delta[:min(len(d.Delta), maxToolInput-len(c.input))]...)
		}
	case protocol.EventToolOutput:
		if c := t.call(d.ID); c != nil {
			c.last = lastLine(d.Text, c.last)
		}
	case protocol.EventToolCallResult:
		return t.result(ev, d)
	case protocol.EventApprovalRequested:
		t.doing = "waiting for approval of " + cell(d.Tool)
	case protocol.EventApprovalResolved:
		t.doing = "working"
		return t.screen.line("", fmt.Sprintf("[%s] %s", cell(d.Decision), d.Reason))
	case protocol.EventRunFinished:
		t.doing, t.calls = "", nil
		// A script's output is what it is; a model's last line wants an end.
		if d.ExitCode == nil && d.Content != "" && !strings.HasSuffix(d.Content, "\n") {
			_, err := io.WriteString(&t.screen.stdout, "\n")
			return err
		}
	case protocol.EventRunError:
		t.doing, t.calls = "", nil
		return t.screen.fresh()
	default: // of no interest to a person, or an event of a later daemon
	}
	return nil
}

func (t *teller) text(d told) error {
	to := &t.screen.stdout
	switch d.Stream {
	case "stderr":
		to = &t.screen.stderr
	case "":
		t.doing = "writing"
	}
	_, err := io.WriteString(to, d.Text)
	return err
}

// result shows a call that has ended. How it went stands before the input, which a model
// wrote and which could else say it in its place.
func (t *teller) result(ev protocol.Event, d told) error {
	c := t.call(d.ID)
	if c == nil {
		c = &toolCall{} // its start was not shown, or there were too many
	}
	t.forget(c)
	t.doing = "waiting for the model"
	how, colour := "ok", dim
	if d.IsError {
		how, colour = "failed", red
	}
	if !c.began.IsZero() {
		how += " " + span(ev.Time.Sub(c.began))
	}
	line := fmt.Sprintf("[%s %s] %s", cell(d.Name), how, brief(c.input))
	if d.IsError && !t.isVerbose {
		line += ": " + firstLine(d.Result)
	}
	if err := t.screen.line(colour, line); err != nil || !t.isVerbose {
		return err
	}
	text := indented(d.Result)
	if len(c.input) > 0 {
		text = shown(c.input) + "\n" + text
	}
	return t.screen.line(dim, text)
}

func (t *teller) call(id string) *toolCall {
	for _, c := range t.calls {
		if c.id == id {
			return c
		}
	}
	return nil
}

func (t *teller) forget(c *toolCall) {
	for i := range t.calls {
		if t.calls[i] == c {
			t.calls = append(t.calls[:i], t.calls[i+1:]...)
			return
		}
	}
}

// state says in a line what goes on: the oldest call, which is what the rest waits for.
func (t *teller) state() string {
	if len(t.calls) == 0 || strings.HasPrefix(t.doing, "waiting for approval") {
		return t.doing
	}
	c := t.calls[0]
	state := cell(c.name) + " " + brief(c.input)
	if more := len(t.calls) - 1; more > 0 {
		state += fmt.Sprintf(" (and %d more)", more)
	}
	if c.last != "" {
		state += " | " + c.last
	}
	return state
}

// brief is what matters most of a tool's input.
func brief(input []byte) string {
	var fields map[string]any
	if json.Unmarshal(input, &fields) == nil {
		for _, name := range []string{"command", "pattern", "path"} {
			if text, ok := fields[name].(string); ok {
				return firstLine(text)
			}
		}
	}
	return firstLine(string(input))
}

// firstLine folds a text.
func firstLine(text string) string {
	line, _, more := strings.Cut(printable(strings.TrimSpace(text)), "\n")
	if len(line) > maxBrief {
		line, more = cut(line, maxBrief), true
	}
	if more {
		line += " …"
	}
	return line
}

// lastLine is the last line of text with something in it; else the one before.
func lastLine(text, before string) string {
	text = strings.TrimSpace(text)
	if text == "" {
		return before
	}
	return firstLine(text[strings.LastIndexByte(text, '\n')+1:])
}

func indented(text string) string {
	return "  " + strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\n  ")
}
