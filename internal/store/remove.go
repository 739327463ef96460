package store

import (
	"context"
	"fmt"
	"time"
)

// Bounds of one transaction that deletes, so that it holds up nobody for long.
const (
	removeRuns   = 500
	removeEvents = 2000
)

// DeleteRunsOf deletes all runs of a user with their events, also those that
// have not ended: what appends to them or reads them gets CodeNotFound.
func (s *Store) DeleteRunsOf(ctx context.Context, userID string) error {
	_, err := s.remove(ctx, "user_id = ?", userID)
	if err != nil {
		return fault("delete runs of user", err)
	}
	return nil
}

// Prune deletes the runs that ended before that time, with their events, and
// returns how many they were. Charges from before that time go, too, but for
// those of the present day, which budgets count. The file does not shrink; its
// pages are used again.
func (s *Store) Prune(ctx context.Context, before time.Time) (int, error) {
	n, err := s.remove(ctx, "ended_at < ?", before.UnixMicro())
	if err != nil {
		return n, fault("prune runs", err)
	}
	if today := dayOf(s.now()); before.After(today) {
		before = today
	}
	for more := true; more; {
		err := s.do(ctx, func(ctx context.Context, w *writer) (err error) {
			more, err = w.removeCharges(ctx, before)
			return err
		}, nil)
		if err != nil {
			return n, fault("prune charges", err)
		}
	}
	return n, nil
}

// remove deletes the runs that meet a condition, then the events of all deleted
// runs, in many small transactions. If it is interrupted, the next call deletes
// what is left over: no reader sees a run that is there in part.
func (s *Store) remove(ctx context.Context, condition string, arg any) (removed int, err error) {
	for more := true; more; {
		var runIDs []string
		err := s.do(ctx, func(ctx context.Context, w *writer) (err error) {
			runIDs, err = w.removeRuns(ctx, condition, arg)
			return err
		}, func() { s.killRemoved(runIDs) })
		if err != nil {
			return removed, err
		}
		removed += len(runIDs)
		more = len(runIDs) == removeRuns
	}
	for more := true; more; {
		err := s.do(ctx, func(ctx context.Context, w *writer) (err error) {
			more, err = w.removeEvents(ctx)
			return err
		}, nil)
		if err != nil {
			return removed, err
		}
	}
	return removed, nil
}

// killRemoved ends the tracks of deleted runs.
func (s *Store) killRemoved(runIDs []string) {
	if len(runIDs) == 0 {
		return
	}
	var tracks []*track
	s.mu.Lock()
	s.departures++ // also where there are no tracks: somebody may be making one
	for _, id := range runIDs {
		if t := s.tracks[id]; t != nil {
			tracks = append(tracks, t)
			delete(s.tracks, id)
		}
	}
	s.mu.Unlock()
	for _, t := range tracks {
		t.kill(errNotFound(t.runID))
	}
}

// removeRuns deletes some of the runs that meet the condition and notes that
// their events are still there.
func (w *writer) removeRuns(ctx context.Context, condition string, arg any) (runIDs []string, err error) {
	chosen := fmt.Sprintf("(SELECT id FROM runs WHERE %s ORDER BY id LIMIT %d)", condition, removeRuns)
	for _, query := range []string{
		"INSERT INTO removed (run) SELECT id FROM runs WHERE id IN " + chosen,
		"DELETE FROM requests WHERE run IN " + chosen,
		"DELETE FROM idempotency_keys WHERE run IN " + chosen,
	} {
		if _, err := w.conn.ExecContext(ctx, query, arg); err != nil {
			return nil, fmt.Errorf("delete runs: %w", err)
		}
	}
	rows, err := w.conn.QueryContext(ctx, "DELETE FROM runs WHERE id IN "+chosen+" RETURNING run_id", arg)
	if err != nil {
		return nil, fmt.Errorf("delete runs: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return nil, fmt.Errorf("delete runs: %w", err)
		}
		runIDs = append(runIDs, id)
	}
	return runIDs, rows.Err()
}

// removeEvents deletes some of the events of deleted runs and reports whether
// there may be more.
func (w *writer) removeEvents(ctx context.Context) (more bool, err error) {
	const (
		next = "SELECT coalesce(min(run), 0) FROM removed"
		// A run's numbers have no gaps: this is at most as many rows.
		drop = "DELETE FROM events WHERE run = ?1 AND seq < ?2 + (SELECT min(seq) FROM events WHERE run = ?1)"
		done = "DELETE FROM removed WHERE run = ?"
	)
	for budget := int64(removeEvents); budget > 0; {
		var row int64
		if err := w.conn.QueryRowContext(ctx, next).Scan(&row); err != nil {
			return false, fmt.Errorf("find deleted runs: %w", err)
		}
		if row == 0 {
			return false, nil
		}
		res, err := w.conn.ExecContext(ctx, drop, row, budget)
		if err != nil {
			return false, fmt.Errorf("delete events: %w", err)
		}
		n, err := res.RowsAffected()
		if err != nil {
			return false, err
		}
		if n < budget {
			if _, err := w.conn.ExecContext(ctx, done, row); err != nil {
				return false, fmt.Errorf("delete events: %w", err)
			}
		}
		budget -= n + 1
	}
	return true, nil
}
