package store

import (
	"context"
	"fmt"
	"time"

	"carrel/protocol"
)

// Spending counts requests, tokens and money.
type Spending struct {
	Requests            int64
	InputTokens         int64 // read from no cache and written to none
	OutputTokens        int64
	CacheReadTokens     int64
	CacheCreationTokens int64
	CostNanoUSD         int64 // 1e-9 US dollars, in which every price of a token is a whole number
}

// Add counts other, too.
func (s *Spending) Add(other Spending) {
	s.Requests += other.Requests
	s.InputTokens += other.InputTokens
	s.OutputTokens += other.OutputTokens
	s.CacheReadTokens += other.CacheReadTokens
	s.CacheCreationTokens += other.CacheCreationTokens
	s.CostNanoUSD += other.CostNanoUSD
}

// Less returns s without other.
func (s Spending) Less(other Spending) Spending {
	return Spending{
		Requests:            s.Requests - other.Requests,
		InputTokens:         s.InputTokens - other.InputTokens,
		OutputTokens:        s.OutputTokens - other.OutputTokens,
		CacheReadTokens:     s.CacheReadTokens - other.CacheReadTokens,
		CacheCreationTokens: s.CacheCreationTokens - other.CacheCreationTokens,
		CostNanoUSD:         s.CostNanoUSD - other.CostNanoUSD,
	}
}

// Usage is s as runs and clients are told it.
func (s Spending) Usage() protocol.Usage {
	return protocol.Usage{
		InputTokens:         s.InputTokens,
		OutputTokens:        s.OutputTokens,
		CacheReadTokens:     s.CacheReadTokens,
		CacheCreationTokens: s.CacheCreationTokens,
		CostUSD:             float64(s.CostNanoUSD) / 1e9,
	}
}

// Charge is one request that went out through the broker, without its content.
type Charge struct {
	Time     time.Time // of its beginning; its day pays
	UserID   string
	RunID    string
	Model    string // as the answer names it; "" where it names none
	Status   int    // HTTP
	Cut      bool   // the answer did not come to its end; its output is an estimate
	BytesIn  int64  // of the request's body
	BytesOut int64  // of the answer's
	Duration time.Duration
	Spending Spending // Requests is not stored: a charge is one
}

// AddCharges stores charges, all or none.
func (s *Store) AddCharges(ctx context.Context, charges []Charge) error {
	const insert = "INSERT INTO charges (time, user_id, run_id, model, status, cut, bytes_in, bytes_out, duration_us," +
		" input, output, cache_read, cache_create, cost_nano) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
	err := s.do(ctx, func(ctx context.Context, w *writer) error {
		for _, c := range charges {
			if _, err := w.conn.ExecContext(ctx, insert, c.Time.UnixMicro(), c.UserID, c.RunID, c.Model, c.Status, c.Cut,
				c.BytesIn, c.BytesOut, c.Duration.Microseconds(), c.Spending.InputTokens, c.Spending.OutputTokens,
				c.Spending.CacheReadTokens, c.Spending.CacheCreationTokens, c.Spending.CostNanoUSD); err != nil {
				return fmt.Errorf("insert charge: %w", err)
			}
		}
		return nil
	}, nil)
	if err != nil {
		return fault("store charges", err)
	}
	return nil
}

// SpentToday sums a user's charges of the present day, which is UTC's.
func (s *Store) SpentToday(ctx context.Context, userID string) (Spending, error) {
	const query = "SELECT count(*), coalesce(sum(input), 0), coalesce(sum(output), 0), coalesce(sum(cache_read), 0)," +
		" coalesce(sum(cache_create), 0), coalesce(sum(cost_nano), 0) FROM charges WHERE user_id = ? AND time >= ?"
	var sum Spending
	err := s.reading.db.QueryRowContext(ctx, query, userID, dayOf(s.now()).UnixMicro()).Scan(&sum.Requests, &sum.InputTokens,
		&sum.OutputTokens, &sum.CacheReadTokens, &sum.CacheCreationTokens, &sum.CostNanoUSD)
	if err != nil {
		return Spending{}, s.readFault("sum charges", err)
	}
	return sum, nil
}

// dayOf returns the beginning of t's day in UTC, which counts no leap seconds.
func dayOf(t time.Time) time.Time { return t.UTC().Truncate(24 * time.Hour) }

// removeCharges deletes some of the charges before that time and reports whether
// there may be more.
func (w *writer) removeCharges(ctx context.Context, before time.Time) (more bool, err error) {
	const drop = "DELETE FROM charges WHERE id IN (SELECT id FROM charges WHERE time < ? LIMIT ?)"
	res, err := w.conn.ExecContext(ctx, drop, before.UnixMicro(), removeEvents)
	if err != nil {
		return false, fmt.Errorf("delete charges: %w", err)
	}
	n, err := res.RowsAffected()
	return n == removeEvents, err
}
