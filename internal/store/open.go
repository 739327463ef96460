package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"carrel/protocol"
)

// Options says which database to open.
type Options struct {
	// URL is "sqlite:" and a file's path. The file and the folder it is in are
	// made where they are not there, for the owner alone.
	URL string
	// Clock gives the time of creation of runs, and of events that come without
	// a time. Nil means time.Now.
	Clock func() time.Time
	// Logger hears of migrations and slow commits. Nil means silence.
	Logger *slog.Logger
}

// Store keeps runs and events. It is safe for concurrent use.
//
// It starts one goroutine, the writer, which Close ends and waits for.
type Store struct {
	now func() time.Time
	log *slog.Logger

	writer  *writer
	reading *readPool

	tasks   chan *task
	work    chan struct{} // holds a token while dirty may have something
	closing chan struct{} // closed when Close begins
	stopped chan struct{} // closed when the writer has written its last

	closeOnce sync.Once
	closeErr  error

	mu sync.Mutex
	// tracks holds the runs that have not ended, as far as they were asked for.
	tracks map[string]*track
	// departures counts how often a run ended or went away: whoever read a run
	// from the database checks that it still holds before making a track of it.
	departures uint64
	dirty      []*track // have pending events, oldest first; each at most once
	closed     bool     // nothing more goes into dirty
}

// Open opens the database, makes it where there is none, and brings its schema
// up to date. It refuses a database that a newer version has written.
func Open(ctx context.Context, o Options) (*Store, error) {
	path, err := sqlitePath(o.URL)
	if err != nil {
		return nil, err
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if err := prepareFile(path); err != nil {
		return nil, fmt.Errorf("open store %s: %w", path, err)
	}
	w, err := openWriter(ctx, path, o.Logger)
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", path, err)
	}
	r, err := openReadPool(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", path, errors.Join(err, w.close()))
	}
	s := &Store{
		now:     o.Clock,
		log:     o.Logger,
		writer:  w,
		reading: r,
		tasks:   make(chan *task, maxTasks),
		work:    make(chan struct{}, 1),
		closing: make(chan struct{}),
		stopped: make(chan struct{}),
		tracks:  make(map[string]*track),
	}
	// What was accepted is written even after the caller's ctx has ended; Close
	// is what ends the writer.
	go s.write(context.WithoutCancel(ctx))
	return s, nil
}

// Close refuses what comes from now on (CodeShuttingDown), stores what was
// accepted, and closes the database. It waits for the writer and for reads under
// way; readers that wait for events get CodeShuttingDown. Its error includes
// write errors that no Append or Flush has reported. Further calls return the
// same.
func (s *Store) Close() error {
	s.closeOnce.Do(func() {
		s.mu.Lock()
		s.closed = true
		s.mu.Unlock()
		close(s.closing)
		<-s.stopped

		errs := []error{s.unreported()}
		errs = append(errs, s.reading.close(), s.writer.close())
		s.closeErr = errors.Join(errs...)
	})
	return s.closeErr
}

// unreported returns the write errors that nobody has heard of.
func (s *Store) unreported() error {
	s.mu.Lock()
	tracks := make([]*track, 0, len(s.tracks))
	for _, t := range s.tracks {
		tracks = append(tracks, t)
	}
	s.mu.Unlock()

	var errs []error
	for _, t := range tracks {
		if err := t.report(); err != nil {
			errs = append(errs, fmt.Errorf("run %s: %w", t.runID, err))
		}
	}
	return errors.Join(errs...)
}

// instant returns t as the store keeps it: in UTC, cut to microseconds, without
// the monotonic clock, so that an event shown live and the same event read back
// are equal to the byte.
func instant(t time.Time) time.Time { return time.UnixMicro(t.UnixMicro()).UTC() }

func errNotFound(runID string) error {
	return protocol.Errorf(protocol.CodeNotFound, "run %q: there is no such run", runID)
}

func errClosed() error {
	return protocol.Errorf(protocol.CodeShuttingDown, "the store is closed")
}

// fault wraps an error of the database in CodeInternal. One that has a code
// already, and the end of the caller's ctx, stay what they are.
func fault(doing string, err error) error {
	if _, ok := errors.AsType[*protocol.Error](err); ok {
		return err
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%s: %w", doing, err)
	}
	return protocol.Errorf(protocol.CodeInternal, "%s: %w", doing, err)
}

// readFault is fault for the read pool, whose connections Close takes away.
func (s *Store) readFault(doing string, err error) error {
	select {
	case <-s.stopped:
		return errClosed()
	default:
		return fault(doing, err)
	}
}

// ended returns why ctx has ended, if it has: an error that is context.Canceled
// or context.DeadlineExceeded and, where there is one, the cause.
func ended(ctx context.Context) error {
	err, cause := ctx.Err(), context.Cause(ctx)
	if err == nil || errors.Is(cause, err) {
		return err
	}
	return fmt.Errorf("%w: %w", err, cause)
}
