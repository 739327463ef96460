package agui

import (
	"cmp"
	"encoding/json"
	"slices"
	"strconv"

	"carrel/protocol"
)

const (
	// maxToolCallIDBytes bounds the id of a tool's call, which a worker makes up;
	// maxCalls how many of a run are known at a time. Both are many times what a model
	// makes use of.
	maxToolCallIDBytes = 256
	maxCalls           = 4096
	// maxQuestions is how many questions one interrupt holds; carrel lets a run have as
	// many open.
	maxQuestions = 64
)

// Run turns one run's events into those of an AG-UI run. It is used by one goroutine.
type Run struct {
	threadID, runID string // AG-UI's
	ours            string // our run's id

	messages int    // made so far; the next one's id comes from it
	answer   string // the assistant's message that calls of tools belong to; "" = none yet
	open     item
	calls    map[string]call // by id

	asked    []Interrupt // questions that are open
	held     []protocol.Event
	heldSize int

	used, told protocol.Usage // by our run; told by earlier AG-UI runs
	ended      bool
}

// item is the one thing that is open: a message, a reasoning or a tool's call.
type item struct {
	kind itemKind
	id   string
	span string // around a reasoning
}

type itemKind int

const (
	nothing itemKind = iota
	text
	reasoning
	toolCall
)

type call struct{ name, parent string }

// NewRun makes an AG-UI run that shows our run of that id.
func NewRun(threadID, runID, ours string) *Run {
	return &Run{threadID: threadID, runID: runID, ours: ours, calls: make(map[string]call)}
}

// started is the metadata of RUN_STARTED.
type started struct {
	RunID string `json:"run_id"`
	// Ignored names what of the input was not empty and has no effect.
	Ignored []string `json:"ignored,omitempty"`
}

// Begin is the event that comes first.
func (r *Run) Begin(ignored []string) Event {
	return Event{
		Type: RunStarted, ThreadID: r.threadID, RunID: r.runID, ProtocolVersion: Version,
		Metadata: &Metadata{started{RunID: r.ours, Ignored: ignored}},
	}
}

// Take turns our run's next event into AG-UI's. While a question is open it shows
// nothing more and holds what comes: that is for the run that answers the question, or
// for this one if somebody else does.
func (r *Run) Take(ev protocol.Event) []Event {
	if len(r.asked) == 0 {
		return r.show(ev)
	}
	ev.Data = slices.Clone(ev.Data) // it is its reader's
	r.held = append(r.held, ev)
	r.heldSize += len(ev.Data)
	switch {
	case ev.Type == protocol.EventApprovalResolved:
		r.resolve(ev)
		if len(r.asked) > 0 {
			return nil
		}
	case ev.Type.Ends():
		r.asked = nil
	case ev.Type != protocol.EventApprovalRequested:
		return nil
	}
	held := r.held
	r.held, r.heldSize = nil, 0
	var out []Event
	for _, ev := range held {
		out = append(out, r.show(ev)...)
	}
	return out
}

// Waits reports whether a question is open, and with how many bytes behind it.
func (r *Run) Waits() (waits bool, heldBytes int) { return len(r.asked) > 0, r.heldSize }

// Ended reports whether the AG-UI run has had its last event.
func (r *Run) Ended() bool { return r.ended }

// Interrupt ends the run with the questions that are open.
func (r *Run) Interrupt() Event {
	return r.finished(Outcome{Type: Interrupted, Interrupts: r.asked}, r.used)
}

// Fail ends the run because it cannot be shown any further.
func (r *Run) Fail(code protocol.Code, message string) []Event {
	out := r.close(nothing)
	r.ended = true
	return append(out, Event{Type: RunError, Code: code, Message: cmp.Or(message, string(code))})
}

// Resume says that all events up to here were shown by an earlier AG-UI run, and that
// these of its interrupts are answered.
func (r *Run) Resume(answered []string) {
	r.asked = slices.DeleteFunc(r.asked, func(i Interrupt) bool { return slices.Contains(answered, i.ID) })
	r.held, r.heldSize = nil, 0
	r.told = r.used
}

func (r *Run) finished(how Outcome, used protocol.Usage) Event {
	r.ended = true
	return Event{Type: RunFinished, ThreadID: r.threadID, RunID: r.runID, Outcome: &how, Usage: usageOf(used, r.told)}
}

// show turns an event into AG-UI's, whatever is asked.
func (r *Run) show(ev protocol.Event) []Event {
	if r.ended {
		return nil
	}
	out, ok := r.translate(ev)
	if !ok {
		out = append(r.close(nothing), Event{Type: Raw, Event: raw(ev.Data), Source: "carrel"})
	}
	for i := range out {
		out[i].Timestamp = max(0, ev.Time.UnixMilli())
	}
	return out
}

// raw is JSON that is safe to pass on.
func raw(data json.RawMessage) json.RawMessage {
	if !json.Valid(data) {
		return json.RawMessage("null")
	}
	return data
}

// translate is false for what AG-UI has no event for, and for data that is not as the
// event's type has it.
func (r *Run) translate(ev protocol.Event) (out []Event, ok bool) {
	switch ev.Type {
	case protocol.EventRunStarted:
		return nil, true // Begin has told it
	case protocol.EventTextDelta:
		return as(ev, func(d protocol.TextDelta) ([]Event, bool) { return r.text(text, d.Text), true })
	case protocol.EventThinkingDelta:
		return as(ev, func(d protocol.ThinkingDelta) ([]Event, bool) { return r.text(reasoning, d.Text), true })
	case protocol.EventToolCallStart:
		return as(ev, r.startCall)
	case protocol.EventToolCallArgs:
		return as(ev, r.continueCall)
	case protocol.EventToolOutput:
		return as(ev, r.output)
	case protocol.EventToolCallResult:
		return as(ev, r.result)
	case protocol.EventApprovalRequested:
		return as(ev, r.ask)
	case protocol.EventApprovalResolved:
		return as(ev, r.resolved)
	case protocol.EventUsage:
		return as(ev, func(u protocol.Usage) ([]Event, bool) {
			r.used = u
			return r.close(nothing), true // an answer is whole
		})
	case protocol.EventRunFinished:
		return as(ev, func(d protocol.Result) ([]Event, bool) { return r.finish(d, ev.Data), true })
	case protocol.EventRunError:
		return as(ev, func(e protocol.RunError) ([]Event, bool) { return r.fail(e), true })
	default:
		return nil, false
	}
}

// as reads an event's data and hands it on.
func as[T any](ev protocol.Event, then func(T) ([]Event, bool)) ([]Event, bool) {
	var data T
	if err := json.Unmarshal(ev.Data, &data); err != nil {
		return nil, false
	}
	return then(data)
}

// newMessage makes an id for a message. The same events give the same ids.
func (r *Run) newMessage() string {
	r.messages++
	return r.ours + "-" + strconv.Itoa(r.messages)
}
