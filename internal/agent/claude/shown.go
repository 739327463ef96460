package claude

import (
	"context"
	"fmt"
	"sync"
	"unicode/utf8"

	"carrel/protocol"
)

const (
	// maxShownBytes bounds what a run streams: a store keeps every event. It is
	// some five million tokens.
	maxShownBytes = 16 << 20
	// maxPieceBytes bounds the text of one event. JSON may make six bytes of one
	// (\u003c), and a line has at most protocol.MaxLineBytes.
	maxPieceBytes = 256 << 10
)

// shown sends a run's events. A nil one sends none. It is safe for concurrent use.
type shown struct {
	emit func(ctx context.Context, t protocol.EventType, data any) error

	mu   sync.Mutex
	left int // bytes of text that may still be streamed
	any  bool
}

// event sends one event.
func (s *shown) event(ctx context.Context, t protocol.EventType, data any) error {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	s.any = true
	s.mu.Unlock()
	return s.emit(ctx, t, data)
}

// text sends text in pieces that events have room for; in says which event has a
// piece. Past the run's bound nothing is sent but one note of it.
func (s *shown) text(ctx context.Context, text string, in func(piece string) (protocol.EventType, any)) error {
	for s != nil && text != "" {
		var piece string
		piece, text = cut(text, maxPieceBytes)
		s.mu.Lock()
		had := s.left
		s.left -= len(piece)
		s.mu.Unlock()
		if had <= 0 {
			return nil
		}
		if had < len(piece) {
			piece = fmt.Sprintf("\n[carrel: past %d MiB of a run nothing more is shown as it comes]\n", maxShownBytes>>20)
		}
		kind, data := in(piece)
		if err := s.event(ctx, kind, data); err != nil {
			return err
		}
	}
	return nil
}

// nothing reports whether nothing was sent since the last call.
func (s *shown) nothing() bool {
	if s == nil {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	had := s.any
	s.any = false
	return !had
}

// cut gives the first n bytes of a text, or one to three less where a character
// would be torn, and the rest.
func cut(text string, n int) (head, rest string) {
	if len(text) <= n {
		return text, ""
	}
	for back := range utf8.UTFMax {
		if utf8.RuneStart(text[n-back]) {
			return text[:n-back], text[n-back:]
		}
	}
	return text[:n], text[n:] // no UTF-8 anyway
}
