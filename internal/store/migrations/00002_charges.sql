-- What requests through the broker cost, one row a request, without content.
-- Times as in runs; money in 1e-9 US dollars. Rows outlive the runs they name:
-- deleting runs must not give a budget back.

-- +goose Up
CREATE TABLE charges (
  id           INTEGER PRIMARY KEY,
  time         INTEGER NOT NULL,
  user_id      TEXT    NOT NULL,
  run_id       TEXT    NOT NULL,
  model        TEXT    NOT NULL,
  status       INTEGER NOT NULL,
  cut          INTEGER NOT NULL,
  bytes_in     INTEGER NOT NULL,
  bytes_out    INTEGER NOT NULL,
  duration_us  INTEGER NOT NULL,
  input        INTEGER NOT NULL,
  output       INTEGER NOT NULL,
  cache_read   INTEGER NOT NULL,
  cache_create INTEGER NOT NULL,
  cost_nano    INTEGER NOT NULL
) STRICT;

CREATE INDEX charges_by_user ON charges (user_id, time);
CREATE INDEX charges_by_time ON charges (time);
