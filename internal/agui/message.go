package agui

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"carrel/protocol"
)

// readMessages finds the user's last message.
func (in *Input) readMessages(list json.RawMessage) error {
	var all []json.RawMessage
	if err := json.Unmarshal(list, &all); err != nil || all == nil {
		return invalid("messages: must be an array")
	}
	if len(all) > maxMessages {
		return protocol.Errorf(protocol.CodeTooLarge, "messages: %d given, at most %d are allowed", len(all), maxMessages)
	}
	var ids []string
	last, content := -1, json.RawMessage(nil)
	for i, message := range all {
		m, err := members(message)
		if err != nil {
			return invalid("messages[%d]: %w", i, err)
		}
		var id, role string
		if json.Unmarshal(m["id"], &id) != nil || json.Unmarshal(m["role"], &role) != nil {
			return invalid("messages[%d]: must have an id and a role, both strings", i)
		}
		ids = append(ids, id)
		if role == "user" {
			last, content = i, m["content"]
		}
	}
	if last < 0 {
		return nil
	}
	in.IsLast = last == len(all)-1
	in.Message = &Message{UpToHere: all[:last+1], place: ids[:last+1]}
	return in.readContent(fmt.Sprintf("messages[%d].content", last), content)
}

// readContent reads a user's message: a text, or parts. A part that cannot be made use
// of does not make the message useless.
func (in *Input) readContent(at string, content json.RawMessage) error {
	if json.Unmarshal(content, &in.Message.Text) == nil && string(content) != "null" {
		return nil
	}
	var parts []struct {
		Type   string
		Text   *string
		Source *struct{ Type, Value, Provider, MimeType string }
	}
	if err := json.Unmarshal(content, &parts); err != nil || parts == nil {
		return invalid("%s: must be a text or an array of parts", at)
	}
	var text strings.Builder
	for i, p := range parts {
		switch {
		case p.Type == "text" && p.Text != nil:
			text.WriteString(*p.Text)
		case p.Type == "text":
			return invalid("%s[%d].text: must be a text", at, i)
		case p.Source != nil && p.Source.Type == "file" && p.Source.Provider == attachmentProvider:
			in.Message.Attachments = append(in.Message.Attachments, protocol.Attachment{ID: p.Source.Value, Type: p.Source.MimeType})
		default:
			in.Ignored = append(in.Ignored, fmt.Sprintf("%s[%d]", at, i))
		}
	}
	in.Message.Text = text.String()
	return nil
}

// readResume reads the answers to interrupts.
func (in *Input) readResume(list json.RawMessage) error {
	var entries []json.RawMessage
	if len(list) > 0 && json.Unmarshal(list, &entries) != nil {
		return invalid("resume: must be an array")
	}
	if len(entries) > maxAnswers {
		return protocol.Errorf(protocol.CodeTooLarge, "resume: %d entries given, at most %d are allowed", len(entries), maxAnswers)
	}
	for i, entry := range entries {
		at := fmt.Sprintf("resume[%d]", i)
		a, err := readAnswer(at, entry)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(in.Resume, func(other Answer) bool { return other.InterruptID == a.InterruptID }) {
			return invalid("%s: answers an interrupt that another entry answers", at)
		}
		in.Resume = append(in.Resume, a)
	}
	return nil
}

func readAnswer(at string, entry json.RawMessage) (a Answer, err error) {
	m, err := members(entry)
	if err != nil {
		return a, invalid("%s: %w", at, err)
	}
	var status string
	if json.Unmarshal(m["interruptId"], &a.InterruptID) != nil || a.InterruptID == "" {
		return a, invalid("%s.interruptId: must be an interrupt's id", at)
	}
	if runID, approvalID, ok := splitInterruptID(a.InterruptID); ok {
		a.RunID, a.ApprovalID = runID, approvalID
	}
	_ = json.Unmarshal(m["status"], &status) // anything but a string is none of these
	switch status {
	case "resolved":
		a.Decision, err = payload(at+".payload", m["payload"])
	case "cancelled":
		a.Decision = protocol.ApprovalDecision{Decision: protocol.Deny, Reason: "the question was put aside without an answer"}
	default:
		err = invalid(`%s.status: must be "resolved" or "cancelled"`, at)
	}
	return a, err
}

// payload reads an answer, of which [responseSchema] says how it looks. It must be plain
// what it means: an approval with a condition that is not understood is none.
func payload(at string, value json.RawMessage) (d protocol.ApprovalDecision, err error) {
	m, err := members(value)
	if err != nil {
		return d, invalid(`%s: %w, as {"approved": true} or {"decision": "deny", "reason": "…"}`, at, err)
	}
	for name := range m {
		if !slices.Contains([]string{"approved", "decision", "reason"}, name) {
			return d, invalid("%s: %.60q is not known here; approved, decision and reason are", at, name)
		}
	}
	var p struct {
		Approved *bool
		Decision *string
		Reason   string
	}
	if err := json.Unmarshal(value, &p); err != nil {
		return d, invalid("%s: approved must be true or false, decision and reason must be strings", at)
	}
	d = protocol.ApprovalDecision{Decision: protocol.Deny, Reason: p.Reason}
	switch {
	case (p.Approved == nil) == (p.Decision == nil):
		return d, invalid("%s: must have either approved or decision", at)
	case p.Decision != nil:
		d.Decision = *p.Decision
	case *p.Approved:
		d.Decision = protocol.Allow
	}
	if d.Decision != protocol.Allow && d.Decision != protocol.Deny {
		return d, invalid("%s.decision: must be %q or %q", at, protocol.Allow, protocol.Deny)
	}
	return d, nil
}
