package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"carrel/protocol"
)

// writer is the one connection that writes, with its statements. Only the
// store's writer goroutine uses it. Statements are used on the connection
// directly: database/sql would prepare them anew in each of its transactions.
type writer struct {
	db   *sql.DB
	conn *sql.Conn

	begin, commitStmt, rollback *sql.Stmt
	advance, start, end         *sql.Stmt
	insertRun, insertRequest    *sql.Stmt
	findKey, putKey             *sql.Stmt
	inserts                     []insertion

	args []any // of an insertion; kept to be used again
}

// insertion inserts a fixed number of events with one statement.
type insertion struct {
	rows int
	stmt *sql.Stmt
}

// eventColumns is how many parameters a row of events takes.
const eventColumns = 5

func openWriter(ctx context.Context, path string, log *slog.Logger) (*writer, error) {
	db, err := openWritable(ctx, path, log)
	if err != nil {
		return nil, err
	}
	w := &writer{db: db}
	if err := w.prepare(ctx); err != nil {
		return nil, errors.Join(err, w.close())
	}
	return w, nil
}

func (w *writer) prepare(ctx context.Context) (err error) {
	if w.conn, err = w.db.Conn(ctx); err != nil {
		return err
	}
	// Filling a statement is most of its cost: 64 rows in one took a third of the
	// time of 64 single ones, more rows gained nothing (measured).
	for _, rows := range []int{64, 8, 1} {
		w.inserts = append(w.inserts, insertion{rows: rows})
	}
	queries := map[**sql.Stmt]string{
		&w.begin:      "BEGIN IMMEDIATE",
		&w.commitStmt: "COMMIT",
		&w.rollback:   "ROLLBACK",
		// The numbers guard against a second process that appends to the run.
		&w.advance: "UPDATE runs SET last_seq = ? WHERE id = ? AND last_seq = ? AND ended_at IS NULL",
		&w.start:   "UPDATE runs SET status = ?, started_at = ? WHERE id = ? AND started_at IS NULL",
		&w.end:     "UPDATE runs SET status = ?, ended_at = ? WHERE id = ?",
		&w.insertRun: "INSERT INTO runs (run_id, user_id, session_id, agent, status, created_at) VALUES (?, ?, ?, ?, ?, ?)" +
			" ON CONFLICT (run_id) DO NOTHING",
		&w.insertRequest: "INSERT INTO requests (run, body) VALUES (?, ?)",
		&w.findKey:       "SELECT run, body_hash FROM idempotency_keys WHERE caller = ? AND key = ? AND created_at > ?",
		&w.putKey:        "INSERT OR REPLACE INTO idempotency_keys (caller, key, run, body_hash, created_at) VALUES (?, ?, ?, ?, ?)",
	}
	for i := range w.inserts {
		row := "(" + strings.TrimSuffix(strings.Repeat("?,", eventColumns), ",") + ")"
		rows := strings.TrimSuffix(strings.Repeat(row+",", w.inserts[i].rows), ",")
		queries[&w.inserts[i].stmt] = "INSERT INTO events (run, seq, time, type, data) VALUES " + rows
	}
	for stmt, query := range queries {
		if *stmt, err = w.conn.PrepareContext(ctx, query); err != nil {
			return fmt.Errorf("prepare %.80q: %w", query, err)
		}
	}
	return nil
}

// close closes the statements with the connection; the last connection of a
// database moves the write-ahead log into it.
func (w *writer) close() error {
	var err error
	if w.conn != nil {
		err = w.conn.Close()
	}
	return errors.Join(err, w.db.Close())
}

// commit stores b whole or not at all, but for the parts it marks as refused.
func (w *writer) commit(ctx context.Context, b *batch) (err error) {
	if _, err := w.begin.ExecContext(ctx); err != nil {
		return fmt.Errorf("begin transaction: %w", err)
	}
	defer func() {
		if err != nil {
			// After a full disk SQLite has rolled back by itself and answers that
			// there is no transaction, which is what is wanted.
			_, _ = w.rollback.ExecContext(ctx)
		}
	}()
	for _, t := range b.tasks {
		if t.err = t.abandoned(); t.err != nil {
			continue
		}
		if err := t.apply(ctx, w); err != nil {
			return err
		}
	}
	for i := range b.parts {
		p := &b.parts[i]
		if p.refused, err = w.advanceRun(ctx, p.track, p.events); err != nil {
			return fmt.Errorf("update run %q: %w", p.track.runID, err)
		}
	}
	if err := w.insertEvents(ctx, b.parts); err != nil {
		return fmt.Errorf("insert events: %w", err)
	}
	if _, err := w.commitStmt.ExecContext(ctx); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

// advanceRun brings the run's row to where it is after events.
func (w *writer) advanceRun(ctx context.Context, t *track, events []protocol.Event) (refused, err error) {
	first, last := events[0], events[len(events)-1]
	res, err := w.advance.ExecContext(ctx, last.Seq, t.row, first.Seq-1)
	if err != nil {
		return nil, err
	}
	if n, err := res.RowsAffected(); err != nil {
		return nil, err
	} else if n == 0 {
		return w.whyRefused(ctx, t)
	}
	isStart := func(ev protocol.Event) bool { return ev.Type == protocol.EventRunStarted }
	if i := slices.IndexFunc(events, isStart); i >= 0 {
		if _, err := w.start.ExecContext(ctx, string(protocol.StatusRunning), events[i].Time.UnixMicro(), t.row); err != nil {
			return nil, err
		}
	}
	if !last.Type.Ends() {
		return nil, nil
	}
	var code protocol.Code
	if _, runErr, err := outcome(last.Type, last.Data); err != nil {
		return nil, err
	} else if runErr != nil {
		code = runErr.Code
	}
	_, err = w.end.ExecContext(ctx, string(protocol.StatusOf(last.Type, code)), last.Time.UnixMicro(), t.row)
	return nil, err
}

// whyRefused tells why the run's row is not where its track has it.
func (w *writer) whyRefused(ctx context.Context, t *track) (refused, err error) {
	var one int
	err = w.conn.QueryRowContext(ctx, "SELECT 1 FROM runs WHERE id = ?", t.row).Scan(&one)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return errNotFound(t.runID), nil
	case err != nil:
		return nil, err
	default:
		return protocol.Errorf(protocol.CodeConflict, "run %q: another process appends to it", t.runID), nil
	}
}

// insertEvents inserts the events of all parts that were not refused, as many
// rows at a time as there are left for.
func (w *writer) insertEvents(ctx context.Context, parts []part) error {
	left := 0
	for _, p := range parts {
		if p.refused == nil {
			left += len(p.events)
		}
	}
	w.args = w.args[:0]
	rows, use := 0, w.widest(left)
	for _, p := range parts {
		if p.refused != nil {
			continue
		}
		for _, ev := range p.events {
			w.args = append(w.args, p.track.row, ev.Seq, ev.Time.UnixMicro(), string(ev.Type), []byte(ev.Data))
			if rows++; rows < use.rows {
				continue
			}
			if _, err := use.stmt.ExecContext(ctx, w.args...); err != nil {
				return err
			}
			left -= rows
			w.args, rows, use = w.args[:0], 0, w.widest(left)
		}
	}
	clear(w.args[:cap(w.args)]) // holds on to no event's data
	return nil
}

// widest returns the insertion of the most rows, at most left (or of one).
func (w *writer) widest(left int) insertion {
	i := slices.IndexFunc(w.inserts, func(in insertion) bool { return in.rows <= left })
	if i < 0 {
		i = len(w.inserts) - 1
	}
	return w.inserts[i]
}
