package jsonrpc

import (
	"bytes"
	"encoding/json"
	"fmt"
	"unicode/utf8"

	"carrel/protocol"
)

// maxIDBytes is the longest id of a request that is taken. The ids of requests
// under way are kept, so a peer must not choose their size.
const maxIDBytes = 256

type kind uint8

const (
	notification kind = iota
	request
	response
)

// message is one decoded line. It shares no memory with the line.
type message struct {
	kind   kind
	method string
	// id is as it stood on the wire; nil in a notification.
	id json.RawMessage
	// body is the params, the result, or (if failed is set) the error object.
	// Params that are absent or null are nil.
	body   json.RawMessage
	failed bool

	// serve runs the handler of a request that was admitted, and answers it.
	serve func()
}

// size is what the message holds in memory, roughly.
func (m *message) size() int { return len(m.method) + len(m.id) + len(m.body) }

// fault says why a line was not taken.
type fault struct {
	// answer is sent to the peer; nil where the line was a response, which is
	// never answered.
	answer *Error
	id     json.RawMessage // of the answer; nil means null
	// end, if set, ends the connection.
	end error
}

func notJSON(reason string) *fault {
	return &fault{
		answer: &Error{Code: protocol.RPCParseError, Message: reason},
		end:    violationf("%s", reason),
	}
}

// invalid refuses one message; the line was JSON, so the stream is still in
// step and the connection goes on.
func invalid(id json.RawMessage, format string, args ...any) *fault {
	text := "invalid request: " + fmt.Sprintf(format, args...)
	return &fault{answer: &Error{Code: protocol.RPCInvalidRequest, Message: text}, id: id}
}

// envelope holds the members of a message as slices of the line, nil if absent.
type envelope struct {
	version, id, method, params, result, failure []byte

	repeated string // a member that was there twice
}

// member returns where the value of the member with this quoted name belongs,
// nil if it is unknown.
func (e *envelope) member(quoted []byte) *[]byte {
	name := quoted[1 : len(quoted)-1]
	if bytes.IndexByte(name, '\\') >= 0 {
		name = unquote(quoted)
	}
	switch string(name) {
	case "jsonrpc":
		return &e.version
	case "id":
		return &e.id
	case "method":
		return &e.method
	case "params":
		return &e.params
	case "result":
		return &e.result
	case "error":
		return &e.failure
	default:
		return nil
	}
}

// decoder turns lines into messages. It belongs to the reader.
type decoder struct{ scan scanner }

// decode checks one line, without its line end, and takes it apart.
func (d *decoder) decode(line []byte) (message, *fault) {
	if !utf8.Valid(line) {
		return message{}, notJSON("invalid JSON: the line is not UTF-8")
	}
	d.scan.reset(line)
	d.scan.space()
	if d.scan.peek() != '{' {
		return message{}, d.other()
	}
	env, err := d.envelope()
	if err != nil {
		return message{}, notJSON(err.Error())
	}
	if env.method == nil && (env.result != nil || env.failure != nil) {
		return env.response()
	}
	return env.request()
}

// other tells why a line that is no object is refused.
func (d *decoder) other() *fault {
	isArray := d.scan.peek() == '['
	if err := d.document(); err != nil {
		return notJSON(err.Error())
	}
	if isArray {
		return invalid(nil, "batches are not supported")
	}
	return invalid(nil, "a message is an object")
}

// document checks the rest of the line: one value and nothing else.
func (d *decoder) document() error {
	if err := d.scan.value(0); err != nil {
		return err
	}
	return d.scan.end()
}

// envelope reads the object that the scanner stands before, to the line's end.
func (d *decoder) envelope() (envelope, error) {
	var env envelope
	err := d.scan.members(func(name, value []byte) error {
		if field := env.member(name); field != nil {
			if *field != nil {
				env.repeated = string(name)
			}
			*field = value
		}
		return nil
	})
	if err != nil {
		return env, err
	}
	return env, d.scan.end()
}

// request makes a message of a request or a notification.
func (e *envelope) request() (message, *fault) {
	var id json.RawMessage
	if e.id != nil {
		if c := e.id[0]; c == '{' || c == '[' || c == 't' || c == 'f' {
			return message{}, invalid(nil, "id must be a string, a number or null")
		}
		if len(e.id) > maxIDBytes {
			return message{}, invalid(nil, "id of %d bytes, at most %d are allowed", len(e.id), maxIDBytes)
		}
		id = bytes.Clone(e.id)
	}
	switch {
	case e.repeated != "":
		// Which of the two counts is where parsers differ: take neither, and do
		// not even trust the id.
		return message{}, invalid(nil, "member %s is there twice", e.repeated)
	case string(e.version) != `"2.0"`:
		return message{}, invalid(id, `jsonrpc must be "2.0"`)
	case e.method == nil || e.method[0] != '"':
		return message{}, invalid(id, "method must be a string")
	case e.result != nil || e.failure != nil:
		return message{}, invalid(id, "a request has neither result nor error")
	}
	m := message{kind: notification, method: string(unquote(e.method)), id: id}
	if e.id != nil {
		m.kind = request
	}
	if e.params != nil && e.params[0] != 'n' {
		if e.params[0] != '{' && e.params[0] != '[' {
			return message{}, invalid(id, "params must be an object or an array")
		}
		m.body = bytes.Clone(e.params)
	}
	return m, nil
}

// response makes a message of a response. Its faults end the connection: it is
// not known which Call it was meant for, and that Call would wait in vain.
func (e *envelope) response() (message, *fault) {
	var wrong string
	switch {
	case e.repeated != "":
		wrong = "member " + e.repeated + " is there twice"
	case string(e.version) != `"2.0"`:
		wrong = `jsonrpc must be "2.0"`
	case e.result != nil && e.failure != nil:
		wrong = "it has both result and error"
	case e.id == nil:
		wrong = "it has no id"
	case len(e.id) > maxIDBytes:
		wrong = "its id is too long"
	}
	if wrong != "" {
		return message{}, &fault{end: violationf("response: %s", wrong)}
	}
	m := message{kind: response, id: bytes.Clone(e.id), failed: e.failure != nil}
	if m.failed {
		m.body = bytes.Clone(e.failure)
	} else {
		m.body = bytes.Clone(e.result)
	}
	return m, nil
}

// unquote returns the text of a JSON string that the scanner has accepted. Should
// encoding/json ever disagree, the text stays as it is spelled: it is compared
// with names and ids, and nobody may crash this side with a spelling.
func unquote(quoted []byte) []byte {
	text := quoted[1 : len(quoted)-1]
	if bytes.IndexByte(text, '\\') < 0 {
		return text
	}
	var s string
	if err := json.Unmarshal(quoted, &s); err != nil {
		return text
	}
	return []byte(s)
}

// idKey makes ids comparable: two spellings of one string are the same id.
func idKey(raw json.RawMessage) string {
	if len(raw) > 0 && raw[0] == '"' {
		return `"` + string(unquote(raw))
	}
	return string(raw)
}
