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
	err := s.members(func(quoted, value []byte) error {
		if err := member(unquote(quoted), value); err != nil {
			return fmt.Errorf("%.64s: %w", quoted, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return s.end()
}

// members moves behind the object that the scanner stands before.
func (s *scanner) members(member func(quoted, value []byte) error) error {
	s.pos++
	s.open(0, true)
	s.space()
	for more := s.peek() != '}'; more; {
		name, err := s.key()
		if err != nil {
			return err
		}
		s.space()
		start := s.pos
		if err := s.value(1); err != nil {
			return err
		}
		if err := member(name, s.line[start:s.pos:s.pos]); err != nil {
			return err
		}
		s.space()
		if more = s.peek() == ','; more {
			s.pos++
		}
	}
	if s.peek() != '}' {
		return s.unexpected("a comma or a closing bracket")
	}
	s.pos++
	return nil
}

// end holds that nothing follows.
func (s *scanner) end() error {
	s.space()
	if s.pos < len(s.line) {
		return s.unexpected("the end of the line")
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
