package attack

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"os"
	"strings"
	"sync"

	"carrel/internal/jail"
)

// Hostile begins the message of a run that a hostile worker is to treat badly: the
// name of a [Trick] follows, and what it is about.
const Hostile = "hostile "

// Trick is what a worker that was taken over may do to the daemon over its own
// stream. Each has an honest form, by which its control tells that the stream works:
// the same message, in the shape and order that the protocol asks for.
type Trick string

// The tricks.
const (
	TrickHonest       Trick = "honest"        // a whole run, as it should be
	TrickEcho         Trick = "echo"          // one as well, that says what it is about
	TrickAsk          Trick = "ask"           // one that asks a person, AskedID, and waits
	TrickBigLine      Trick = "big-line"      // one line past the limit
	TrickEndlessLine  Trick = "endless-line"  // a line that never ends
	TrickNoUTF8       Trick = "no-utf8"       // text that is no UTF-8
	TrickHalfLine     Trick = "half-line"     // half an event, then the process ends
	TrickNoJSON       Trick = "no-json"       // a line that is no JSON
	TrickDeep         Trick = "deep"          // a hundred thousand brackets
	TrickForeignID    Trick = "foreign-id"    // an answer to a question that nobody asked
	TrickTwice        Trick = "twice"         // two answers to one question, the second another
	TrickNoEnd        Trick = "no-end"        // a result without RUN_FINISHED
	TrickGap          Trick = "gap"           // event 3 after event 1
	TrickAgain        Trick = "again"         // event 2 twice
	TrickAfterEnd     Trick = "after-end"     // an event after the last
	TrickUnknownType  Trick = "unknown-type"  // an event whose type breaks the frame it is shown in
	TrickNoObject     Trick = "no-object"     // an event whose data is a string
	TrickOtherRun     Trick = "other-run"     // an event of the run that is named
	TrickOtherAsk     Trick = "other-ask"     // an approval asked for the run that is named
	TrickForgedAnswer Trick = "forged-answer" // an approval that nobody was asked for, told as granted
	TrickForgedPrice  Trick = "forged-price"  // a result that claims to have cost a fortune
	TrickSilence      Trick = "silence"       // no answer, ever
	TrickFlood        Trick = "flood"         // events as fast as they go, without an end
	TrickUnread       Trick = "unread"        // questions without end, whose answers nobody reads
)

// ForgedCost is what a forged price claims, in US dollars.
const ForgedCost = 4242

// AskedID is the id of the question that [TrickAsk] asks.
const AskedID = "apr_asked"

// hostile is a worker that was taken over: it speaks JSON-RPC as it likes.
type hostile struct {
	mu   sync.Mutex
	out  io.Writer
	deaf chan struct{} // closed once nothing is read any more
}

// line is one message in either direction.
type line struct {
	JSONRPC string          `json:"jsonrpc"`
	ID      json.RawMessage `json:"id,omitempty"`
	Method  string          `json:"method,omitempty"`
	Params  any             `json:"params,omitempty"`
	Result  any             `json:"result,omitempty"`
}

// beHostile answers as an honest worker would, until a run's message names a trick.
func beHostile(in io.Reader, out io.Writer) error {
	h := &hostile{out: out, deaf: make(chan struct{})}
	lines := bufio.NewReader(in)
	for {
		text, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		var m struct {
			ID     json.RawMessage `json:"id"`
			Method string          `json:"method"`
			Params struct {
				ProtocolVersion int    `json:"protocol_version"`
				Agent           string `json:"agent"`
				RunID           string `json:"run_id"`
				SessionID       string `json:"session_id"`
				Message         string `json:"message"`
			} `json:"params"`
		}
		if err := json.Unmarshal(text, &m); err != nil {
			return err
		}
		switch m.Method {
		case "initialize":
			h.send(line{ID: m.ID, Result: map[string]any{
				"protocol_version": m.Params.ProtocolVersion, "agent": m.Params.Agent, "capabilities": []string{m.Params.Agent}, "isolation": jail.Inside(nil),
			}})
		case "ping":
			h.send(line{ID: m.ID, Result: struct{}{}})
		case "exec":
			h.send(line{ID: m.ID, Result: map[string]any{"exit_code": 0, "stdout": "honest", "stderr": ""}})
		case "shutdown":
			h.send(line{ID: m.ID, Result: struct{}{}})
			return nil
		case "execute":
			trick, about, _ := strings.Cut(strings.TrimPrefix(m.Params.Message, Hostile), " ")
			r := &badRun{hostile: h, id: m.ID, run: m.Params.RunID, session: m.Params.SessionID, about: about}
			go r.play(Trick(trick)) // ends with the process, if it does not before
		}
		select {
		case <-h.deaf:
			select {} // until it is killed
		default:
		}
	}
}

func (h *hostile) send(l line) {
	l.JSONRPC = "2.0"
	text, err := json.Marshal(l)
	if err != nil {
		leave()
	}
	h.write(string(text) + "\n")
}

// write ends the process when nobody reads any more, as any writer's would.
func (h *hostile) write(text string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, err := io.WriteString(h.out, text); err != nil {
		leave()
	}
}

// leave ends the process at once, as one that was taken over may.
func leave() { os.Exit(0) } //nolint:forbidigo // there is nothing to clean up

// badRun is one run that is treated badly.
type badRun struct {
	*hostile
	id           json.RawMessage
	run, session string
	about        string
}

func (r *badRun) event(run string, seq int, kind string, data any) {
	r.send(line{Method: "event", Params: map[string]any{"run_id": run, "seq": seq, "type": kind, "data": data}})
}

func (r *badRun) text(seq int, text string) {
	r.event(r.run, seq, "TEXT_DELTA", map[string]string{"text": text})
}

func (r *badRun) result(content string) map[string]any {
	return map[string]any{"run_id": r.run, "session_id": r.session, "status": "finished", "content": content, "stop_reason": "end_turn"}
}

// end is the honest ending, after two events.
func (r *badRun) end(content string) {
	r.event(r.run, 3, "RUN_FINISHED", r.result(content))
	r.send(line{ID: r.id, Result: r.result(content)})
}

// raw sends an event whose data is given as JSON, or as what should be.
func (r *badRun) raw(seq int, kind, data string) {
	name, _ := json.Marshal(kind)
	run, _ := json.Marshal(r.run)
	seqText, _ := json.Marshal(seq)
	r.write(`{"jsonrpc":"2.0","method":"event","params":{"run_id":` + string(run) + `,"seq":` + string(seqText) +
		`,"type":` + string(name) + `,"data":` + data + "}}\n")
}
