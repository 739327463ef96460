-- Times are microseconds since 1970, UTC. A run's result or error is not kept
-- here: it is the data of its last event.

-- +goose Up
CREATE TABLE runs (
  -- AUTOINCREMENT: the number of a deleted run is never given to another one,
  -- since its events may still be there (see removed).
  id         INTEGER PRIMARY KEY AUTOINCREMENT,
  run_id     TEXT    NOT NULL UNIQUE,
  user_id    TEXT    NOT NULL,
  session_id TEXT    NOT NULL,
  agent      TEXT    NOT NULL,
  status     TEXT    NOT NULL,
  created_at INTEGER NOT NULL,
  started_at INTEGER,
  ended_at   INTEGER,
  last_seq   INTEGER NOT NULL DEFAULT 0
) STRICT;

-- Each index holds the id behind its column, so it gives "newest first".
CREATE INDEX runs_by_user    ON runs (user_id);
CREATE INDEX runs_by_session ON runs (session_id);
CREATE INDEX runs_by_status  ON runs (status);
CREATE INDEX runs_by_end     ON runs (ended_at) WHERE ended_at IS NOT NULL;

-- Apart from runs, whose rows are rewritten with every batch of events.
CREATE TABLE requests (
  run  INTEGER PRIMARY KEY,
  body BLOB NOT NULL
) STRICT;

CREATE TABLE idempotency_keys (
  caller     TEXT    NOT NULL,
  key        TEXT    NOT NULL,
  run        INTEGER NOT NULL,
  body_hash  BLOB    NOT NULL,
  created_at INTEGER NOT NULL,
  PRIMARY KEY (caller, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX idempotency_keys_by_run ON idempotency_keys (run);

CREATE TABLE events (
  run  INTEGER NOT NULL,
  seq  INTEGER NOT NULL,
  time INTEGER NOT NULL,
  type TEXT    NOT NULL,
  data BLOB    NOT NULL,
  PRIMARY KEY (run, seq)
) STRICT, WITHOUT ROWID;

-- Deleted runs whose events are still to be deleted, a bounded number at a time.
CREATE TABLE removed (
  run INTEGER PRIMARY KEY
) STRICT;
