package jsonrpc

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"unicode/utf8"

	"carrel/protocol"
)

// encoder writes one line at a time. The lines it returns are valid until its
// next use.
type encoder struct {
	buf  bytes.Buffer
	json *json.Encoder
	max  int // bytes of a line, without its end
}

func newEncoder(limit int) *encoder {
	e := &encoder{max: limit}
	e.json = json.NewEncoder(&e.buf)
	e.json.SetEscapeHTML(false) // it would make every < six bytes long
	return e
}

// call encodes a request, or with id 0 a notification.
func (e *encoder) call(id uint64, method string, params any) ([]byte, error) {
	e.start()
	if id != 0 {
		e.buf.WriteString(`,"id":`)
		e.buf.Write(strconv.AppendUint(e.buf.AvailableBuffer(), id, 10))
	}
	e.buf.WriteString(`,"method":`)
	if err := e.value(method); err != nil {
		return nil, err
	}
	if params != nil {
		mark := e.buf.Len()
		e.buf.WriteString(`,"params":`)
		start := e.buf.Len()
		if err := e.value(params); err != nil {
			return nil, fmt.Errorf("params: %w", err)
		}
		switch e.buf.Bytes()[start] {
		case '{', '[':
		case 'n':
			e.buf.Truncate(mark) // a nil pointer or map: no params
		default:
			return nil, errors.New("params must be an object or an array")
		}
	}
	return e.finish()
}

// result encodes the answer to a request that succeeded.
func (e *encoder) result(id json.RawMessage, result any) ([]byte, error) {
	e.start()
	e.id(id)
	e.buf.WriteString(`,"result":`)
	if err := e.value(result); err != nil {
		return nil, fmt.Errorf("result: %w", err)
	}
	return e.finish()
}

// failure encodes the answer to a request that failed. A nil id is written null.
func (e *encoder) failure(id json.RawMessage, wire *Error) ([]byte, error) {
	e.start()
	e.id(id)
	e.buf.WriteString(`,"error":`)
	if err := e.value(wire); err != nil {
		return nil, fmt.Errorf("error: %w", err)
	}
	return e.finish()
}

func (e *encoder) start() {
	e.buf.Reset()
	e.buf.WriteString(`{"jsonrpc":"2.0"`)
}

func (e *encoder) id(id json.RawMessage) {
	e.buf.WriteString(`,"id":`)
	if id == nil {
		e.buf.WriteString("null")
	}
	e.buf.Write(id)
}

// value appends v. encoding/json compacts what a Marshaler or a RawMessage gives,
// so no value brings a line end of its own.
func (e *encoder) value(v any) error {
	if err := e.json.Encode(v); err != nil {
		return err
	}
	e.buf.Truncate(e.buf.Len() - 1) // Encode's line end
	return nil
}

// finish closes the line. It refuses what the peer would end the connection for.
func (e *encoder) finish() ([]byte, error) {
	e.buf.WriteByte('}')
	line := e.buf.Bytes()
	if len(line) > e.max {
		return nil, protocol.Errorf(protocol.CodeTooLarge, "message of %d bytes, at most %d fit into a line", len(line), e.max)
	}
	if !utf8.Valid(line) { // a RawMessage is not checked by encoding/json
		return nil, errors.New("message is not UTF-8")
	}
	// encoding/json limits the depth of each RawMessage by itself, so a line can
	// come out deeper than a peer takes. Few brackets cannot nest deeply.
	if bytes.Count(line, []byte{'{'})+bytes.Count(line, []byte{'['}) > maxDepth {
		s := scanner{line: line}
		if err := s.value(0); err != nil {
			return nil, protocol.Errorf(protocol.CodeTooLarge, "message: %w", err)
		}
	}
	e.buf.WriteByte('\n')
	return e.buf.Bytes(), nil
}
