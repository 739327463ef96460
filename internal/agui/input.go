package agui

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"carrel/protocol"
)

// Input is what a RunAgentInput asks for.
type Input struct {
	ThreadID string // a session's id
	RunID    string
	// Message is the user's last; nil if there is none. IsLast tells that nothing comes
	// after it.
	Message *Message
	IsLast  bool
	Resume  []Answer
	// Carrel is forwardedProps.carrel: what is meant for us.
	Carrel json.RawMessage
	// Ignored names what is not empty and has no effect.
	Ignored []string
}

// Message is a user's message.
type Message struct {
	Text        string
	Attachments []protocol.Attachment
	// UpToHere are all messages of the input, this the last, as they came.
	UpToHere []json.RawMessage

	place []string // the ids of those
}

// Answer is a resume's answer to an interrupt.
type Answer struct {
	InterruptID string
	Decision    protocol.ApprovalDecision
	// RunID and ApprovalID are what the interrupt's id names; empty if it is none of ours.
	RunID, ApprovalID string
}

const (
	// maxRunIDBytes bounds a client's id of its run, which is told again in the answer.
	maxRunIDBytes = 256
	// maxMessages bounds a conversation, maxAnswers a resume: four times what an
	// interrupt holds.
	maxMessages = 20_000
	maxAnswers  = 4 * maxQuestions
)

// attachmentProvider is the provider of a part's file source that is an attachment.
const attachmentProvider = "carrel"

func invalid(format string, args ...any) error {
	return protocol.Errorf(protocol.CodeInvalidRequest, format, args...)
}

// ReadInput reads a RunAgentInput. Members that AG-UI does not know are left alone, as
// it asks for; a known one that is not as it must be is CodeInvalidRequest.
func ReadInput(body []byte) (Input, error) {
	var in Input
	m, err := members(body)
	if err != nil {
		return in, invalid("body: %w", err)
	}
	if json.Unmarshal(m["threadId"], &in.ThreadID) != nil || protocol.CheckSessionID(in.ThreadID) != nil {
		return in, invalid("threadId: must be a session's id: 1 to %d of A-Z a-z 0-9 . _ -", protocol.MaxSessionIDBytes)
	}
	if json.Unmarshal(m["runId"], &in.RunID) != nil || in.RunID == "" || len(in.RunID) > maxRunIDBytes || strings.ContainsFunc(in.RunID, unicode.IsControl) {
		return in, invalid("runId: must be 1 to %d bytes without control characters", maxRunIDBytes)
	}
	if err := in.readMessages(m["messages"]); err != nil {
		return in, err
	}
	if err := in.readResume(m["resume"]); err != nil {
		return in, err
	}
	return in, in.readRest(m)
}

// members reads a JSON object. Names are told apart by case, and none stands twice:
// whoever checked the input on its way here must have seen the same one.
func members(object json.RawMessage) (map[string]json.RawMessage, error) {
	dec := json.NewDecoder(bytes.NewReader(object))
	if token, err := dec.Token(); err != nil || token != json.Delim('{') {
		return nil, fmt.Errorf("must be a JSON object")
	}
	m := make(map[string]json.RawMessage)
	for dec.More() {
		token, err := dec.Token()
		if err != nil {
			return nil, fmt.Errorf("not JSON: %w", err)
		}
		name, _ := token.(string)
		if _, twice := m[name]; twice {
			return nil, fmt.Errorf("%.60q is given twice", name)
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, fmt.Errorf("not JSON: %w", err)
		}
		m[name] = value
	}
	if _, err := dec.Token(); err != nil {
		return nil, fmt.Errorf("not JSON: %w", err)
	}
	if dec.More() {
		return nil, fmt.Errorf("must be one JSON object")
	}
	return m, nil
}

// isGiven tells that a member is there and holds something.
func isGiven(value json.RawMessage) bool {
	return !slices.Contains([]string{"", "null", "[]", "{}"}, string(bytes.TrimSpace(value)))
}

// readRest reads the members that have no effect, and which of the application's own
// values are meant for us.
func (in *Input) readRest(m map[string]json.RawMessage) error {
	for _, name := range []string{"tools", "context"} {
		var list []json.RawMessage
		if value := m[name]; len(value) > 0 && json.Unmarshal(value, &list) != nil {
			return invalid("%s: must be an array", name)
		}
	}
	for _, name := range []string{"tools", "context", "state", "parentRunId"} {
		if isGiven(m[name]) {
			in.Ignored = append(in.Ignored, name)
		}
	}
	forwarded := m["forwardedProps"]
	if !isGiven(forwarded) || bytes.TrimSpace(forwarded)[0] != '{' {
		return nil
	}
	props, err := members(forwarded)
	if err != nil {
		return invalid("forwardedProps: %w", err)
	}
	if isGiven(props["carrel"]) {
		in.Carrel = props["carrel"]
	}
	return nil
}

// Key names the last message of a user: by its place in the conversation and its text. A
// request that is made again has the same.
func (in *Input) Key(userID string) string {
	h := sha256.New()
	// Encoding what is hashed keeps two lists from being one.
	_ = json.NewEncoder(h).Encode([]any{userID, in.ThreadID, in.Message.place, in.Message.Text, in.Message.Attachments})
	return "ag-ui:" + hex.EncodeToString(h.Sum(nil))
}
