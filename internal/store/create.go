package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"carrel/protocol"
)

// keyLifetime is how long an idempotency key answers with its run (CONTRACT,
// HTTP API).
const keyLifetime = 24 * time.Hour

// NewRun is a run to record.
type NewRun struct {
	RunID     string
	UserID    string
	SessionID string
	Agent     string
	// Request is the request as the caller sent it, before anything was filled
	// in: it is kept for the record, and a repeat is told by it.
	Request protocol.ExecuteRequest
	// Caller and IdempotencyKey name the request. Without a key it is never a
	// repeat.
	Caller         string
	IdempotencyKey string
}

// CreateRun records a run as queued; it is stored when CreateRun returns (see
// the package's word on durability). For the same caller and key as at most 24 h
// ago it returns the earlier run and existing = true; if the request is another
// one, CodeConflict. A run id that is taken is CodeConflict as well. If ctx ends
// while it waits, the run may have been recorded or not.
func (s *Store) CreateRun(ctx context.Context, n NewRun) (run protocol.Run, existing bool, err error) {
	if n.RunID == "" || n.UserID == "" {
		return protocol.Run{}, false, protocol.Errorf(protocol.CodeInvalidRequest, "create run: a run needs an id and a user")
	}
	body, err := json.Marshal(n.Request)
	if err != nil {
		return protocol.Run{}, false, protocol.Errorf(protocol.CodeInvalidRequest, "create run: encode request: %w", err)
	}
	c := &creation{NewRun: n, body: body, at: instant(s.now())}
	if err := s.do(ctx, c.apply, func() { c.publish(s) }); err != nil {
		return protocol.Run{}, false, fault(fmt.Sprintf("create run %q", n.RunID), err)
	}
	if c.refused != nil {
		return protocol.Run{}, false, c.refused
	}
	run, err = c.stored.run(s.now())
	return run, c.existing, err
}

// creation is a CreateRun on its way through the writer.
type creation struct {
	NewRun

	body []byte
	at   time.Time

	stored   storedRun
	existing bool
	refused  error
}

func (c *creation) apply(ctx context.Context, w *writer) error {
	hash := sha256.Sum256(c.body)
	if c.IdempotencyKey != "" {
		if done, err := c.repeat(ctx, w, hash[:]); done || err != nil {
			return err
		}
	}
	c.stored = storedRun{
		Run: protocol.Run{
			RunID: c.RunID, UserID: c.UserID, SessionID: c.SessionID, Agent: c.Agent,
			Status: protocol.StatusQueued, CreatedAt: c.at,
		},
	}
	res, err := w.insertRun.ExecContext(ctx, c.RunID, c.UserID, c.SessionID, c.Agent,
		string(protocol.StatusQueued), c.at.UnixMicro())
	if err != nil {
		return fmt.Errorf("insert run: %w", err)
	}
	if n, err := res.RowsAffected(); err != nil {
		return err
	} else if n == 0 {
		c.refused = protocol.Errorf(protocol.CodeConflict, "create run %q: the id is taken", c.RunID)
		return nil
	}
	if c.stored.row, err = res.LastInsertId(); err != nil {
		return err
	}
	if _, err := w.insertRequest.ExecContext(ctx, c.stored.row, c.body); err != nil {
		return fmt.Errorf("insert request: %w", err)
	}
	if c.IdempotencyKey == "" {
		return nil
	}
	if _, err := w.putKey.ExecContext(ctx, c.Caller, c.IdempotencyKey, c.stored.row, hash[:], c.at.UnixMicro()); err != nil {
		return fmt.Errorf("insert idempotency key: %w", err)
	}
	return nil
}

// repeat looks for an earlier run of the key and reports whether there is one.
func (c *creation) repeat(ctx context.Context, w *writer, hash []byte) (done bool, err error) {
	var row int64
	var earlier []byte
	since := c.at.Add(-keyLifetime).UnixMicro()
	err = w.findKey.QueryRowContext(ctx, c.Caller, c.IdempotencyKey, since).Scan(&row, &earlier)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read idempotency key: %w", err)
	}
	if string(earlier) != string(hash) {
		c.refused = protocol.Errorf(protocol.CodeConflict, "the idempotency key was used for another request")
		return true, nil
	}
	c.existing = true
	if c.stored, err = scanRun(w.conn.QueryRowContext(ctx, selectRuns+" WHERE r.id = ?", row)); err != nil {
		return false, fmt.Errorf("read run of idempotency key: %w", err)
	}
	return true, nil
}

// publish makes the new run's track, so that its first events need no read.
func (c *creation) publish(s *Store) {
	if c.refused != nil || c.existing {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tracks[c.RunID] == nil {
		s.tracks[c.RunID] = newTrack(c.RunID, c.stored.row, 0)
	}
}
