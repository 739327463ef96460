package session

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"
	"syscall"
	"time"

	"carrel/protocol"
)

// MaxBytes bounds a transcript. A long day's work is a few MiB; attachments are
// not in it.
const MaxBytes = 64 << 20

// Store is the sessions of one home, for the worker that holds it. It is safe
// for concurrent use; runs of one session take turns. A second store over the
// same home does not know of them: a user has one worker.
type Store struct {
	home *os.Root

	mu    sync.Mutex
	turns map[string]*turn
}

// turn is who may use a session.
type turn struct {
	taken   chan struct{} // holds one value while somebody has it
	waiting int           // or having it; guarded by Store.mu
}

// NewStore makes the store of a home.
func NewStore(home *os.Root) *Store {
	return &Store{home: home, turns: make(map[string]*turn)}
}

// Open waits until no other run has the session, until ctx ends, and reads it. A
// session that is not there is an empty one: its file comes with the first Append.
// A transcript that cannot be used is a [protocol.Error] with CodeConflict, one
// that is too long one with CodeTooLarge.
func (s *Store) Open(ctx context.Context, id string) (*Session, error) {
	if err := protocol.CheckSessionID(id); err != nil {
		return nil, err
	}
	if err := s.take(ctx, id); err != nil {
		return nil, err
	}
	opened := &Session{id: id, store: s}
	if err := opened.load(); err != nil {
		opened.Close()
		return nil, err
	}
	return opened, nil
}

func (s *Store) take(ctx context.Context, id string) error {
	s.mu.Lock()
	t := s.turns[id]
	if t == nil {
		t = &turn{taken: make(chan struct{}, 1)}
		s.turns[id] = t
	}
	t.waiting++
	s.mu.Unlock()

	select {
	case t.taken <- struct{}{}:
		return nil
	case <-ctx.Done():
		s.leave(id, t)
		return context.Cause(ctx)
	}
}

func (s *Store) release(id string) {
	s.mu.Lock()
	t := s.turns[id]
	s.mu.Unlock()
	<-t.taken
	s.leave(id, t)
}

func (s *Store) leave(id string, t *turn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.waiting--; t.waiting == 0 {
		delete(s.turns, id)
	}
}

// Session is an open one. It belongs to one run, which closes it.
type Session struct {
	id       string
	store    *Store
	file     *os.File // nil while there is none
	size     int64
	messages []Message
	dir      string
}

// Dir is where the session's shell was last; "" where it was in none yet.
func (s *Session) Dir() string { return s.dir }

// Messages is the conversation as the model is to see it. The caller must not
// change it.
func (s *Session) Messages() []Message { return s.messages }

// Close gives the session to the next run that waits for it.
func (s *Session) Close() {
	if s.file != nil {
		_ = s.file.Close() // every write was synced
		s.file = nil
	}
	s.store.release(s.id)
}

// Append adds messages to the conversation. They are on disk when it returns;
// after an error none of them is there.
func (s *Session) Append(runID string, messages ...Message) error {
	lines := make([]Line, len(messages))
	for i, m := range messages {
		lines[i] = Line{Time: time.Now().UTC(), RunID: runID, Message: m}
	}
	if err := s.write(lines); err != nil {
		return err
	}
	s.messages = append(s.messages, messages...)
	for _, m := range messages {
		s.dir = cmp.Or(m.Dir, s.dir)
	}
	return nil
}

// Summarize lets summary take the place of the first messages.
func (s *Session) Summarize(runID, summary string, replaces int) error {
	if err := s.write([]Line{{Time: time.Now().UTC(), RunID: runID, Summary: summary, Replaces: replaces}}); err != nil {
		return err
	}
	s.messages = summarized(s.messages, summary, replaces)
	return nil
}

// load reads the file, cuts off a torn last line and completes a last turn that
// lacks its results.
func (s *Session) load() error {
	file, data, err := readRegular(s.store.home, s.id, os.O_RDWR)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	s.file = file
	lines, whole, err := parse(data)
	if err == nil {
		s.messages, err = replay(lines)
	}
	if err != nil {
		return protocol.Errorf(protocol.CodeConflict, "session %s: its transcript is broken: %w", s.id, err)
	}
	for _, l := range lines {
		s.dir = cmp.Or(l.Dir, s.dir)
	}
	if s.size = int64(whole); whole < len(data) {
		if err := s.cut(); err != nil {
			return fmt.Errorf("session %s: %w", s.id, err)
		}
	}
	if m, ok := missingResults(s.messages); ok {
		return s.Append("", m)
	}
	return nil
}

// write appends lines at once and syncs them.
func (s *Session) write(lines []Line) error {
	var data []byte
	for _, l := range lines {
		data = append(append(data, Encode(l)...), '\n')
	}
	if s.size+int64(len(data)) > MaxBytes {
		return protocol.Errorf(protocol.CodeTooLarge, "session %s: a transcript has at most %d bytes: go on in another session", s.id, MaxBytes)
	}
	if err := s.create(); err != nil {
		return diskError(fmt.Errorf("session %s: %w", s.id, err))
	}
	_, err := s.file.WriteAt(data, s.size)
	if err == nil {
		err = s.file.Sync()
	}
	if err != nil {
		return diskError(fmt.Errorf("session %s: %w", s.id, errors.Join(err, s.cut())))
	}
	s.size += int64(len(data))
	return nil
}

// create makes the file if there is none yet.
func (s *Session) create() (err error) {
	if s.file != nil {
		return nil
	}
	if err := s.store.home.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	if s.file, err = s.store.home.OpenFile(path(s.id), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
		return err
	}
	return syncFolder(s.store.home)
}

// cut takes back what is behind the last whole line.
func (s *Session) cut() error {
	if err := s.file.Truncate(s.size); err != nil {
		return err
	}
	return s.file.Sync()
}

// diskError gives an error of a full disk its code.
func diskError(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return protocol.Errorf(protocol.CodeDiskQuotaExceeded, "%w", err)
	}
	return err
}
