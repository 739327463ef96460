package jsonrpc

import "fmt"

// maxDepth is how many levels deep a line may nest: encoding/json's own limit
// (its constant maxNestingDepth), so that whatever passes here can be decoded by
// a handler.
const maxDepth = 10000

// scanner checks that a line is JSON (RFC 8259) while finding the envelope's
// members in it. It neither recurses nor allocates, and it agrees with json.Valid
// on every valid UTF-8 line (held by FuzzScanner); the UTF-8 itself is checked before.
type scanner struct {
	line []byte
	pos  int
	// objects has one bit a level that is open: object (1) or array (0).
	objects [maxDepth/64 + 1]uint64
}

func (s *scanner) reset(line []byte) { s.line, s.pos = line, 0 }

// peek returns the byte at the position, or 0 at the end; a 0 in the line itself
// is no JSON outside strings, so the two need no telling apart.
func (s *scanner) peek() byte {
	if s.pos < len(s.line) {
		return s.line[s.pos]
	}
	return 0
}

func (s *scanner) space() {
	for s.pos < len(s.line) {
		switch s.line[s.pos] {
		case ' ', '\t', '\r', '\n':
			s.pos++
		default:
			return
		}
	}
}

func (s *scanner) unexpected(wanted string) error {
	if s.pos >= len(s.line) {
		return fmt.Errorf("invalid JSON: the line ends where %s should follow", wanted)
	}
	return fmt.Errorf("invalid JSON: %q at byte %d where %s should follow", s.line[s.pos], s.pos+1, wanted)
}

// open notes that level depth is an object or an array.
func (s *scanner) open(depth int, object bool) {
	bit := uint64(1) << (depth % 64)
	if object {
		s.objects[depth/64] |= bit
	} else {
		s.objects[depth/64] &^= bit
	}
}

// value moves behind one value that stands depth levels deep.
func (s *scanner) value(depth int) error {
	outer := depth
	for {
		s.space()
		if c := s.peek(); c != '{' && c != '[' {
			if err := s.scalar(); err != nil {
				return err
			}
		} else {
			if depth == maxDepth {
				return fmt.Errorf("invalid JSON: nested more than %d levels deep", maxDepth)
			}
			s.open(depth, c == '{')
			depth++
			s.pos++
			s.space()
			if s.peek() != c+2 { // in ASCII the closing bracket is two behind the opening one
				if c == '{' {
					if _, err := s.key(); err != nil {
						return err
					}
				}
				continue
			}
		}
		// A value is complete, or an empty container is about to be.
		var err error
		if depth, err = s.close(depth, outer); err != nil || depth == outer {
			return err
		}
	}
}

// close leaves every container that ends here, down to level outer, and moves to
// the next value of the innermost one that goes on. It returns the new depth.
func (s *scanner) close(depth, outer int) (int, error) {
	for depth > outer {
		object := s.objects[(depth-1)/64]>>((depth-1)%64)&1 == 1
		s.space()
		switch c := s.peek(); {
		case c == ',':
			s.pos++
			if object {
				_, err := s.key()
				return depth, err
			}
			return depth, nil
		case c == '}' && object, c == ']' && !object:
			s.pos++
			depth--
		default:
			return depth, s.unexpected("a comma or a closing bracket")
		}
	}
	return depth, nil
}

// key moves behind a member's name and its colon and returns the name as it
// stands there, quotes included.
func (s *scanner) key() ([]byte, error) {
	s.space()
	start := s.pos
	if s.peek() != '"' {
		return nil, s.unexpected("a member's name")
	}
	if err := s.text(); err != nil {
		return nil, err
	}
	name := s.line[start:s.pos]
	s.space()
	if s.peek() != ':' {
		return nil, s.unexpected("a colon")
	}
	s.pos++
	return name, nil
}

func (s *scanner) scalar() error {
	switch c := s.peek(); {
	case c == '"':
		return s.text()
	case c == '-', c >= '0' && c <= '9':
		return s.number()
	case c == 't':
		return s.literal("true")
	case c == 'f':
		return s.literal("false")
	case c == 'n':
		return s.literal("null")
	default:
		return s.unexpected("a value")
	}
}

func (s *scanner) literal(word string) error {
	for i := range len(word) {
		if s.peek() != word[i] {
			return s.unexpected(word)
		}
		s.pos++
	}
	return nil
}

// text moves behind a string.
func (s *scanner) text() error {
	for i := s.pos + 1; i < len(s.line); i++ {
		switch c := s.line[i]; {
		case c == '"':
			s.pos = i + 1
			return nil
		case c < ' ':
			s.pos = i
			return s.unexpected("no control character")
		case c == '\\':
			n := escapeLen(s.line[i:])
			if n == 0 {
				s.pos = i
				return s.unexpected("a known escape")
			}
			i += n - 1
		}
	}
	s.pos = len(s.line)
	return s.unexpected("the end of a string")
}

// escapeLen returns the length of the escape that b begins with, 0 if it is none.
func escapeLen(b []byte) int {
	if len(b) < 2 {
		return 0
	}
	switch b[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
		if len(b) < 6 {
			return 0
		}
		for _, c := range b[2:6] {
			if (c < '0' || c > '9') && (c < 'a' || c > 'f') && (c < 'A' || c > 'F') {
				return 0
			}
		}
		return 6
	default:
		return 0
	}
}

// number moves behind a number (RFC 8259, section 6).
func (s *scanner) number() error {
	if s.peek() == '-' {
		s.pos++
	}
	if s.peek() == '0' {
		s.pos++
	} else if !s.digits() {
		return s.unexpected("a digit")
	}
	if s.peek() == '.' {
		s.pos++
		if !s.digits() {
			return s.unexpected("a digit")
		}
	}
	if c := s.peek(); c == 'e' || c == 'E' {
		s.pos++
		if c := s.peek(); c == '+' || c == '-' {
			s.pos++
		}
		if !s.digits() {
			return s.unexpected("a digit")
		}
	}
	return nil
}

// digits moves behind digits and reports whether there was one at least.
func (s *scanner) digits() bool {
	start := s.pos
	for s.pos < len(s.line) && s.line[s.pos] >= '0' && s.line[s.pos] <= '9' {
		s.pos++
	}
	return s.pos > start
}
