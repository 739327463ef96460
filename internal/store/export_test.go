package store

import (
	"context"
	"fmt"

	"carrel/protocol"
)

// What the tests of package store_test see of the inside.
const (
	QueueEvents  = queueEvents
	RecentEvents = recentEvents
)

// LimitPages makes the database full as soon as it is longer than it is now by
// that many pages; negative takes the limit away.
func (s *Store) LimitPages(ctx context.Context, more int) error {
	return s.do(ctx, func(ctx context.Context, w *writer) error {
		limit := int64(1) << 30
		if more >= 0 {
			if err := w.conn.QueryRowContext(ctx, "PRAGMA page_count").Scan(&limit); err != nil {
				return err
			}
			limit += int64(more)
		}
		_, err := w.conn.ExecContext(ctx, fmt.Sprintf("PRAGMA max_page_count = %d", limit))
		return err
	}, nil)
}

// Hold stops the writer in the middle of a transaction until release is called.
func (s *Store) Hold(ctx context.Context) (release func()) {
	held, free, gone := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		_ = s.do(ctx, func(context.Context, *writer) error {
			close(held)
			<-free
			return nil
		}, nil)
	}()
	<-held
	return func() {
		close(free)
		<-gone
	}
}

// Tracks counts the runs of which something is in memory.
func (s *Store) Tracks() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.tracks)
}

// Exec runs a statement in the writer.
func (s *Store) Exec(ctx context.Context, query string, args ...any) error {
	return s.do(ctx, func(ctx context.Context, w *writer) error {
		_, err := w.conn.ExecContext(ctx, query, args...)
		return err
	}, nil)
}

// Count runs a query that gives a number.
func (s *Store) Count(ctx context.Context, query string) (n int, err error) {
	return n, s.reading.db.QueryRowContext(ctx, query).Scan(&n)
}

func NewCursor(q protocol.RunQuery, row int64) string { return newCursor(q, row) }

func ReadCursor(q protocol.RunQuery) (int64, error) { return readCursor(q) }
