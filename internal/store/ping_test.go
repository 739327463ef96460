package store_test

import (
	"context"
	"errors"
	"testing"

	"carrel/protocol"
)

func TestPingIsAnsweredByAWriterThatTakesItsTurn(t *testing.T) {
	s := open(t)
	if err := s.Ping(t.Context()); err != nil {
		t.Error(err)
	}
	if err := s.LimitPages(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	if err := s.Ping(t.Context()); err != nil {
		t.Errorf("on a full disk: %v", err)
	}

	release := s.Hold(t.Context())
	ctx, cancel := context.WithCancel(t.Context())
	answer := make(chan error, 1)
	go func() { answer <- s.Ping(ctx) }()
	select {
	case err := <-answer:
		t.Errorf("a writer that hangs has answered: %v", err)
	default:
	}
	cancel()
	if err := <-answer; !errors.Is(err, context.Canceled) {
		t.Errorf("the wait for a writer that hangs ends with %v", err)
	}
	release()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Ping(t.Context()); protocol.CodeOf(err) != protocol.CodeShuttingDown {
		t.Errorf("once it is closed: %v", err)
	}
}
