package store

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite" // registers the "sqlite" driver
	sqlitelib "modernc.org/sqlite/lib"
)

// Settings of every connection. A checkpoint flushes to the disk, so few of them
// make many events a second; the WAL is then about this long at most, unless a
// reader holds it.
const (
	checkpointPages  = 4096     // of 4 KiB each: 16 MiB
	walLimitBytes    = 64 << 20 // a longer WAL is cut back after its checkpoint
	writerCacheKiB   = 16 << 10
	readerCacheKiB   = 2 << 10
	busyTimeoutMS    = 10_000 // for another process that writes
	readConnections  = 4
	migrationsFolder = "migrations"
	migrateAttempts  = 5
)

//go:embed migrations/*.sql
var migrations embed.FS

// sqlitePath returns the absolute path a database URL names. It never quotes the
// URL of a server, which may hold a password.
func sqlitePath(raw string) (string, error) {
	scheme, path, ok := strings.Cut(raw, ":")
	switch {
	case ok && (scheme == "postgres" || scheme == "postgresql"):
		return "", errors.New("database url: postgres is not supported yet: use sqlite:/path/to/carrel.db")
	case !ok || scheme != "sqlite":
		return "", errors.New("database url: must be sqlite:/path/to/carrel.db")
	}
	path = strings.TrimPrefix(path, "//")
	if path == "" || strings.HasPrefix(path, ":") || strings.ContainsAny(path, "?\x00") {
		return "", fmt.Errorf("database url: %q: after sqlite: must stand a file's path, without parameters", raw)
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("database url: %w", err)
	}
	return abs, nil
}

// prepareFile makes the database's file if it is not there, readable by its
// owner alone; SQLite gives the mode to the files it makes beside it. A file
// that is there is never opened here: closing it would drop the locks that
// SQLite holds on it in this process (sqlite.org/howtocorrupt.html §2.2).
func prepareFile(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return os.Chmod(path, 0o600)
	}
	if err != nil {
		return err
	}
	return f.Close()
}

// dataSource returns what the driver opens path by. A percent-encoded path may
// hold any character.
func dataSource(path, parameters string, pragmas ...string) string {
	var b strings.Builder
	b.WriteString("file:")
	b.WriteString((&url.URL{Path: path}).EscapedPath())
	b.WriteString("?" + parameters)
	for _, p := range pragmas {
		b.WriteString("&_pragma=" + url.QueryEscape(p))
	}
	return b.String()
}

// openWritable opens path for the writer: at most one connection, migrated.
func openWritable(ctx context.Context, path string, log *slog.Logger) (*sql.DB, error) {
	db, err := sql.Open("sqlite", dataSource(path, "_txlock=immediate",
		fmt.Sprintf("busy_timeout(%d)", busyTimeoutMS),
		"journal_mode(wal)",
		"synchronous(normal)",
		fmt.Sprintf("cache_size(-%d)", writerCacheKiB),
		fmt.Sprintf("wal_autocheckpoint(%d)", checkpointPages),
		fmt.Sprintf("journal_size_limit(%d)", walLimitBytes),
	))
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	if err := migrate(ctx, db, log); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// migrate brings the schema up to date. Where two processes do it at once, one
// of them fails on what the other has made, and looks again.
func migrate(ctx context.Context, db *sql.DB, log *slog.Logger) error {
	mode, err := journalMode(ctx, db)
	if err != nil {
		return fmt.Errorf("read journal mode: %w", err)
	}
	if mode != "wal" {
		return fmt.Errorf("this file system does not allow SQLite's write-ahead log (journal mode is %q): put the database on a local disk", mode)
	}
	files, err := fs.Sub(migrations, migrationsFolder)
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, db, files, goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return fmt.Errorf("read migrations: %w", err)
	}
	for attempt := 1; ; attempt++ {
		done, err := migrateOnce(ctx, p, log)
		if done || (err != nil && attempt == migrateAttempts) {
			return err
		}
	}
}

// journalMode connects for the first time, which turns the write-ahead log on.
// SQLite does not wait for a lock while it changes the mode, whatever the busy
// timeout says: where another process does so at the moment, this one looks again.
func journalMode(ctx context.Context, db *sql.DB) (mode string, err error) {
	ctx, cancel := context.WithTimeout(ctx, busyTimeoutMS*time.Millisecond)
	defer cancel()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for {
		err = db.QueryRowContext(ctx, "PRAGMA journal_mode").Scan(&mode)
		busy, ok := errors.AsType[*sqlite.Error](err)
		if !ok || busy.Code()&0xff != sqlitelib.SQLITE_BUSY {
			return mode, err
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return "", err
		}
	}
}

// migrateOnce reports whether there is no use in trying again.
func migrateOnce(ctx context.Context, p *goose.Provider, log *slog.Logger) (done bool, err error) {
	current, target, err := p.GetVersions(ctx)
	switch {
	case err != nil:
		return ctx.Err() != nil, fmt.Errorf("read schema version: %w", err)
	case current > target:
		return true, fmt.Errorf("the database was written by a newer version of carrel (its schema is %d, this version knows up to %d): start the newer version", current, target)
	case current == target:
		return true, nil
	}
	if _, err := p.Up(ctx); err != nil {
		return ctx.Err() != nil, fmt.Errorf("migrate schema from %d to %d: %w", current, target, err)
	}
	log.InfoContext(ctx, "database schema migrated", slog.Int64("from", current), slog.Int64("to", target))
	return true, nil
}

// readPool reads committed rows. Its connections cannot write.
type readPool struct {
	db     *sql.DB
	run    *sql.Stmt // run id → runColumns
	owner  *sql.Stmt // run id → user_id
	header *sql.Stmt // run id → id, last_seq, ended or not
	exists *sql.Stmt // runs.id → one row
	events *sql.Stmt // runs.id, seq, limit → eventColumns after seq
}

func openReadPool(ctx context.Context, path string) (*readPool, error) {
	db, err := sql.Open("sqlite", dataSource(path, "mode=ro",
		fmt.Sprintf("busy_timeout(%d)", busyTimeoutMS),
		"query_only(1)",
		fmt.Sprintf("cache_size(-%d)", readerCacheKiB),
	))
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(readConnections)
	db.SetMaxIdleConns(readConnections)
	p := &readPool{db: db}
	for _, s := range []struct {
		stmt  **sql.Stmt
		query string
	}{
		{&p.run, selectRuns + " WHERE r.run_id = ?"},
		{&p.owner, "SELECT user_id FROM runs WHERE run_id = ?"},
		{&p.header, "SELECT id, last_seq, ended_at IS NOT NULL FROM runs WHERE run_id = ?"},
		{&p.exists, "SELECT 1 FROM runs WHERE id = ?"},
		{&p.events, "SELECT seq, time, type, data FROM events WHERE run = ? AND seq > ? ORDER BY seq LIMIT ?"},
	} {
		if *s.stmt, err = db.PrepareContext(ctx, s.query); err != nil {
			return nil, errors.Join(fmt.Errorf("prepare %q: %w", s.query, err), db.Close())
		}
	}
	return p, nil
}

// close closes the statements with the connections.
func (p *readPool) close() error { return p.db.Close() }
