package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"carrel/protocol"
)

// Bounds of a page of runs. A run's result may be as long as an event's data, so
// a page ends early, with a cursor, once its results are longer than pageBytes.
const (
	defaultPageRuns = 50
	maxPageRuns     = 500
	pageBytes       = 8 << 20
)

// selectRuns gives what scanRun reads. The last event of an ended run holds its
// result or error.
const selectRuns = `SELECT r.id, r.run_id, r.user_id, r.session_id, r.agent, r.status,
	r.created_at, r.started_at, r.ended_at, r.last_seq, e.type, e.data
	FROM runs r
	LEFT JOIN events e ON r.ended_at IS NOT NULL AND e.run = r.id AND e.seq = r.last_seq`

// storedRun is a row of selectRuns.
type storedRun struct {
	protocol.Run // without its result and error

	row    int64
	ending sql.NullString // type of the last event, if it ends the run
	data   []byte         // of that event
}

// scanner is a sql.Row or sql.Rows.
type scanner interface{ Scan(dest ...any) error }

func scanRun(from scanner) (storedRun, error) {
	var r storedRun
	var created int64
	var started, ended sql.NullInt64
	if err := from.Scan(&r.row, &r.RunID, &r.UserID, &r.SessionID, &r.Agent, (*string)(&r.Status),
		&created, &started, &ended, &r.LastSeq, &r.ending, &r.data); err != nil {
		return storedRun{}, err
	}
	r.CreatedAt = fromMicros(created)
	r.StartedAt, r.EndedAt = optionalTime(started), optionalTime(ended)
	return r, nil
}

// run returns the run as it is shown at now.
func (r storedRun) run(now time.Time) (protocol.Run, error) {
	run := r.Run
	waitedUntil := now
	if run.EndedAt != nil {
		waitedUntil = *run.EndedAt
	}
	if run.StartedAt != nil {
		waitedUntil = *run.StartedAt
	}
	run.WaitedMS = max(0, waitedUntil.Sub(run.CreatedAt).Milliseconds())
	if !r.ending.Valid {
		return run, nil
	}
	var err error
	if run.Result, run.Error, err = outcome(protocol.EventType(r.ending.String), r.data); err != nil {
		return protocol.Run{}, protocol.Errorf(protocol.CodeInternal, "read run %q: %w", run.RunID, err)
	}
	return run, nil
}

func fromMicros(t int64) time.Time { return time.UnixMicro(t).UTC() }

func optionalTime(t sql.NullInt64) *time.Time {
	if !t.Valid {
		return nil
	}
	at := fromMicros(t.Int64)
	return &at
}

// Run returns a run as it is stored; CodeNotFound if there is none of this id.
func (s *Store) Run(ctx context.Context, runID string) (protocol.Run, error) {
	r, err := scanRun(s.reading.run.QueryRowContext(ctx, runID))
	if errors.Is(err, sql.ErrNoRows) {
		return protocol.Run{}, errNotFound(runID)
	}
	if err != nil {
		return protocol.Run{}, s.readFault(fmt.Sprintf("read run %q", runID), err)
	}
	return r.run(s.now())
}

// RunOfKey returns the run that CreateRun would return for a caller and its idempotency
// key; CodeNotFound if it would make a new one.
func (s *Store) RunOfKey(ctx context.Context, caller, key string) (protocol.Run, error) {
	const query = selectRuns + " WHERE r.id = (SELECT run FROM idempotency_keys WHERE caller = ? AND key = ? AND created_at > ?)"
	since := instant(s.now()).Add(-keyLifetime).UnixMicro()
	r, err := scanRun(s.reading.db.QueryRowContext(ctx, query, caller, key, since))
	if errors.Is(err, sql.ErrNoRows) {
		return protocol.Run{}, protocol.Errorf(protocol.CodeNotFound, "no run has this idempotency key")
	}
	if err != nil {
		return protocol.Run{}, s.readFault("read the run of an idempotency key", err)
	}
	return r.run(s.now())
}

// Owner returns whose run it is; CodeNotFound if there is none of this id.
func (s *Store) Owner(ctx context.Context, runID string) (userID string, err error) {
	err = s.reading.owner.QueryRowContext(ctx, runID).Scan(&userID)
	if errors.Is(err, sql.ErrNoRows) {
		return "", errNotFound(runID)
	}
	if err != nil {
		return "", s.readFault(fmt.Sprintf("read owner of run %q", runID), err)
	}
	return userID, nil
}

// Runs returns a page of the runs that q selects, the newest first: 50, or
// q.Limit up to 500, fewer where their results are long. Pages joined by their
// cursors hold no run twice, and miss none that was there at the first page and
// still is. A cursor that is none, or that came from another selection, is
// CodeInvalidRequest.
func (s *Store) Runs(ctx context.Context, q protocol.RunQuery) (protocol.RunPage, error) {
	var where []string
	var args []any
	only := func(condition string, arg any) {
		where, args = append(where, condition), append(args, arg)
	}
	if q.UserID != "" {
		only("r.user_id = ?", q.UserID)
	}
	if q.SessionID != "" {
		only("r.session_id = ?", q.SessionID)
	}
	if q.Status != "" {
		only("r.status = ?", string(q.Status))
	}
	if q.Cursor != "" {
		before, err := readCursor(q)
		if err != nil {
			return protocol.RunPage{}, err
		}
		only("r.id < ?", before)
	}
	limit := min(q.Limit, maxPageRuns)
	if q.Limit < 0 {
		return protocol.RunPage{}, protocol.Errorf(protocol.CodeInvalidRequest, "limit: must not be negative")
	}
	if q.Limit == 0 {
		limit = defaultPageRuns
	}
	query := selectRuns
	if len(where) > 0 {
		query += " WHERE " + strings.Join(where, " AND ")
	}
	runs, more, err := s.list(ctx, query+" ORDER BY r.id DESC", limit, args...)
	if err != nil {
		return protocol.RunPage{}, err
	}
	page := protocol.RunPage{Runs: make([]protocol.Run, 0, len(runs))}
	for _, r := range runs {
		run, err := r.run(s.now())
		if err != nil {
			return protocol.RunPage{}, err
		}
		page.Runs = append(page.Runs, run)
	}
	if more {
		page.NextCursor = newCursor(q, runs[len(runs)-1].row)
	}
	return page, nil
}

// Unfinished returns all runs that have no ending event, the oldest first.
func (s *Store) Unfinished(ctx context.Context) ([]protocol.Run, error) {
	const query = selectRuns + " WHERE r.status IN (?, ?) ORDER BY r.id"
	rows, _, err := s.list(ctx, query, 0, string(protocol.StatusQueued), string(protocol.StatusRunning))
	if err != nil {
		return nil, err
	}
	runs := make([]protocol.Run, 0, len(rows))
	for _, r := range rows {
		run, err := r.run(s.now())
		if err != nil {
			return nil, err
		}
		runs = append(runs, run)
	}
	return runs, nil
}

// list reads rows of selectRuns: at most limit (0 = all) and about pageBytes of
// results. It reports whether there are more.
func (s *Store) list(ctx context.Context, query string, limit int, args ...any) (runs []storedRun, more bool, err error) {
	rows, err := s.reading.db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, false, s.readFault("list runs", err)
	}
	defer func() {
		if cerr := rows.Close(); err == nil && cerr != nil {
			runs, err = nil, s.readFault("list runs", cerr)
		}
	}()
	bytes := 0
	for rows.Next() {
		if len(runs) > 0 && (len(runs) == limit || bytes > pageBytes) {
			return runs, true, nil
		}
		r, err := scanRun(rows)
		if err != nil {
			return nil, false, s.readFault("list runs", err)
		}
		runs = append(runs, r)
		bytes += len(r.data)
	}
	if err := rows.Err(); err != nil {
		return nil, false, s.readFault("list runs", err)
	}
	return runs, false, nil
}

// A cursor is base64url of the number of the last run given (8 bytes) and the
// start of a hash over that and the selection (8 bytes). The hash tells a cursor
// that is damaged or from elsewhere; it is no secret and guards none: the
// selection itself comes from the query, never from its cursor.
const cursorBytes = 16

func newCursor(q protocol.RunQuery, row int64) string {
	b := binary.BigEndian.AppendUint64(nil, uint64(row))
	return base64.RawURLEncoding.EncodeToString(append(b, selectionHash(q, b)...))
}

func readCursor(q protocol.RunQuery) (row int64, err error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(q.Cursor)
	if err != nil || len(b) != cursorBytes || string(b[8:]) != string(selectionHash(q, b[:8])) {
		return 0, protocol.Errorf(protocol.CodeInvalidRequest, "cursor: must be the next_cursor of an earlier page of the same selection")
	}
	return int64(binary.BigEndian.Uint64(b)), nil
}

func selectionHash(q protocol.RunQuery, row []byte) []byte {
	h := sha256.New()
	for _, field := range []string{string(row), q.UserID, q.SessionID, string(q.Status)} {
		_, _ = fmt.Fprintf(h, "%d:%s", len(field), field)
	}
	return h.Sum(nil)[:cursorBytes-8]
}
