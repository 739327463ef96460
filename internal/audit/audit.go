package audit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// Options say where the log is and what is in it.
type Options struct {
	File string // its directory must be there
	// MaxBytes is how large the file gets before it is put aside; Keep how many that
	// were put aside are kept.
	MaxBytes int64
	Keep     int
	// Content keeps messages, commands, inputs of tools and paths, bounded in length.
	Content bool
	Log     *slog.Logger
}

// complaintEvery is how often it is told that lines are being lost.
const complaintEvery = time.Minute

// Log is an open audit log. It is safe for concurrent use and starts no goroutine. A
// nil one is off: it takes everything and keeps nothing.
type Log struct {
	o         Options
	lostTotal atomic.Int64

	mu         sync.Mutex
	file       *os.File // nil = closed
	torn       bool     // what stands at the file's end is half a line that cannot be removed
	seq        int64    // of the last line
	lost       int64    // lines that no line tells of yet
	complained time.Time
	rates      rates
}

// Open opens the log, and makes the file if there is none. Errors: the file is a link,
// no plain file, another user's or open to others' writing; another daemon has it.
func Open(o Options) (*Log, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	l := &Log{o: o, rates: make(rates)}
	file, torn, err := open(o.File)
	if err != nil {
		return nil, fmt.Errorf("audit log: %w", err)
	}
	l.file, l.torn = file, torn
	return l, nil
}

// Write adds a line. An error says that it is not there; it has been counted and
// logged. A line of which its user's worker has caused too many is no error.
func (l *Log) Write(ctx context.Context, e Event) error {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	leftOut, ok := l.rates.take(e, now)
	if !ok {
		return nil
	}
	if leftOut > 0 {
		l.tell(ctx, Event{Action: LeftOut, UserID: e.UserID, Of: e.Action, Lines: leftOut})
	}
	if !l.o.Content {
		e.Content = ""
	}
	return l.put(ctx, e)
}

// Settle tells how many lines of a user have been left out so far. It is called when
// something of that user's has ended: there may be no next line to tell it with.
func (l *Log) Settle(ctx context.Context, userID string) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range l.rates.settle(userID, time.Now()) {
		l.tell(ctx, e)
	}
}

// Check reports why lines are lost, after having tried to write those that were. It
// writes nothing if none was.
func (l *Log) Check(ctx context.Context) error {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.lost == 0 {
		return nil
	}
	return l.tellLost(ctx)
}

// Lost counts the lines that could not be written since the log was opened.
func (l *Log) Lost() int64 {
	if l == nil {
		return 0
	}
	return l.lostTotal.Load()
}

// Reopen opens the file anew: whoever has put it aside wants it let go.
func (l *Log) Reopen(ctx context.Context) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.follow(); err != nil {
		l.complain(ctx, "it cannot be opened anew", err)
	}
}

// Close tells what was left out and closes the file.
func (l *Log) Close(ctx context.Context) error {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	for _, e := range l.rates.settle("", time.Now()) {
		l.tell(ctx, e)
	}
	err := l.file.Close()
	l.file = nil
	return err
}

// put writes a line, and before it what there is to say of those that were lost.
func (l *Log) put(ctx context.Context, e Event) error {
	if l.lost > 0 {
		if err := l.tellLost(ctx); err != nil {
			return l.lose(ctx, err, 1)
		}
	}
	if err := l.line(ctx, e); err != nil {
		return l.lose(ctx, err, 1)
	}
	return nil
}

// tellLost writes how many lines were lost. One that failed is no lost line.
func (l *Log) tellLost(ctx context.Context) error {
	if err := l.line(ctx, Event{Action: Lost, Lines: l.lost}); err != nil {
		return l.lose(ctx, err, 0)
	}
	l.o.Log.InfoContext(ctx, "the audit log is written again", "lost", l.lost)
	l.lost, l.complained = 0, time.Time{}
	return nil
}

// tell writes a line of the log's own; lose has told why if it is not there.
func (l *Log) tell(ctx context.Context, e Event) { _ = l.put(ctx, e) }

func (l *Log) lose(ctx context.Context, err error, lines int64) error {
	l.lost += lines
	l.lostTotal.Add(lines)
	l.complain(ctx, "it cannot be written; lines are lost", err)
	return err
}

// complain logs an error, once in a while.
func (l *Log) complain(ctx context.Context, what string, err error) {
	if now := time.Now(); now.Sub(l.complained) >= complaintEvery {
		l.complained = now
		l.o.Log.ErrorContext(ctx, "fault of the audit log", "what", what, "file", l.o.File, "lost", l.lost, "error", err)
	}
}

// line numbers and writes one line.
func (l *Log) line(ctx context.Context, e Event) error {
	if l.file == nil {
		return errors.New("audit log: closed")
	}
	text, err := e.encode(time.Now(), l.seq+1)
	if err != nil {
		return err
	}
	if err := l.makeRoom(ctx, int64(len(text))); err != nil {
		return err
	}
	if l.torn {
		text = append([]byte("\n"), text...)
	}
	if err := l.append(text); err != nil {
		return fmt.Errorf("audit log: %w", err)
	}
	l.torn = false
	l.seq++
	return nil
}
