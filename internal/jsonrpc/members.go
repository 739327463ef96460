package jsonrpc

import (
	"bytes"
	"fmt"
)

// Members calls member for each member of an object, in their order, with the name and
// the value as it stands there: a part of raw. It stops at the first error, which it
// returns; what is no object, or no JSON, is an error as well. encoding/json needs
// several times as long for a small object, and a stream has one for each word.
func Members(raw []byte, member func(name, value []byte) error) error {
	s := scanner{line: raw}
	s.space()
	if s.peek() != '{' {
		return s.unexpected("an object")
	}
	s.pos++
	s.open(0, true)
	s.space()
	for open := s.peek() != '}'; open; {
		name, err := s.key()
		if err != nil {
			return err
		}
		s.space()
		start := s.pos
		if err := s.value(1); err != nil {
			return err
		}
		if err := member(unquote(name), raw[start:s.pos:s.pos]); err != nil {
			return fmt.Errorf("%.64s: %w", name, err)
		}
		s.space()
		if open = s.peek() == ','; open {
			s.pos++
		}
	}
	if s.peek() != '}' {
		return s.unexpected("a comma or a closing bracket")
	}
	s.pos++
	s.space()
	if s.pos < len(raw) {
		return s.unexpected("the end")
	}
	return nil
}

// Text is the text of a JSON string, as [Members] gives it.
func Text(value []byte) (string, error) {
	if len(value) < 2 || value[0] != '"' {
		return "", fmt.Errorf("%.64s is no string", bytes.ToValidUTF8(value, nil))
	}
	return string(unquote(value)), nil
}
