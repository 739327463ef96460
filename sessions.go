package carrel

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"carrel/internal/agent/session"
	"carrel/internal/audit"
	"carrel/protocol"
)

// ListSessions lists what the user's agents remember, the last used first. A user
// without a directory has none.
func (o *Orchestrator) ListSessions(ctx context.Context, userID string) (protocol.SessionList, error) {
	list := protocol.SessionList{Sessions: []protocol.SessionInfo{}}
	err := o.inHome(ctx, userID, func(home *os.Root, _ func(*os.File) error) error {
		infos, err := session.List(home)
		for _, i := range infos {
			list.Sessions = append(list.Sessions, protocol.SessionInfo{SessionID: i.ID, Bytes: i.Bytes, ModifiedAt: i.Modified})
		}
		return err
	})
	if protocol.CodeOf(err) == protocol.CodeNotFound {
		err = nil
	}
	return list, err
}

// maxTranscripts is how many transcripts are read at a time: one may have 64 MiB, and
// its answer as much again.
const maxTranscripts = 2

// ReadSession gives a session's transcript. CodeNotFound if there is none;
// CodeConflict where it is broken. It waits while others read theirs.
func (o *Orchestrator) ReadSession(ctx context.Context, userID, sessionID string) (protocol.Transcript, error) {
	t := protocol.Transcript{SessionID: sessionID, Entries: []json.RawMessage{}}
	done, err := o.beginReading(ctx)
	if err != nil {
		return t, err
	}
	defer done()
	err = o.inHome(ctx, userID, func(home *os.Root, _ func(*os.File) error) error {
		lines, err := session.Read(home, sessionID)
		if len(lines) > 0 {
			t.Entries = lines
		}
		return err
	})
	return t, err
}

// beginReading waits until fewer than maxTranscripts are read, or ctx ends.
func (o *Orchestrator) beginReading(ctx context.Context) (done func(), err error) {
	select {
	case o.transcripts <- struct{}{}:
		return func() { <-o.transcripts }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// DeleteSession removes a session; CodeNotFound if there is none.
func (o *Orchestrator) DeleteSession(ctx context.Context, userID, sessionID string) error {
	err := o.inHome(ctx, userID, func(home *os.Root, _ func(*os.File) error) error {
		return session.Delete(home, sessionID)
	})
	o.note(ctx, audit.Event{Action: audit.SessionDeleted, UserID: userID, SessionID: sessionID}, err)
	return err
}

// ForkSession makes a new session that begins as another; fork is its id, or empty
// for a new one. CodeNotFound, CodeConflict if there is one of that id, or
// CodeDiskQuotaExceeded.
func (o *Orchestrator) ForkSession(ctx context.Context, userID, sessionID, fork string) (made protocol.SessionInfo, err error) {
	if fork == "" {
		fork = newID("session-")
	}
	if err := protocol.CheckUserID(userID); err != nil {
		return made, err
	}
	defer func() {
		o.note(ctx, audit.Event{Action: audit.SessionForked, UserID: userID, SessionID: sessionID, Fork: fork}, err)
	}()
	done, err := o.beginReading(ctx)
	if err != nil {
		return made, err
	}
	defer done()
	left, free, err := o.room.take(ctx, userID, session.MaxBytes)
	if err != nil {
		return made, err
	}
	defer free()
	err = o.inHome(ctx, userID, func(home *os.Root, own func(*os.File) error) error {
		info, err := session.Fork(home, sessionID, fork, own)
		if err == nil && info.Bytes > left {
			err = errors.Join(session.Delete(home, fork),
				protocol.Errorf(protocol.CodeDiskQuotaExceeded, "the user may have %d bytes more (SANDBOX_DISK_QUOTA)", left))
		}
		made = protocol.SessionInfo{SessionID: info.ID, Bytes: info.Bytes, ModifiedAt: info.Modified}
		return err
	})
	return made, err
}

// inHome calls do with the user's home, and with what makes a file there the user's
// own. A user without a directory is CodeNotFound; none is made.
//
// The directory above home is the daemon's own, so the path leads nowhere else; below
// it os.Root leads nowhere out, whatever the sandbox has put there.
func (o *Orchestrator) inHome(ctx context.Context, userID string, do func(home *os.Root, own func(*os.File) error) error) (err error) {
	if err := protocol.CheckUserID(userID); err != nil {
		return err
	}
	if err := o.enter(); err != nil {
		return err
	}
	defer o.runsWG.Done()
	if !o.dirs.Exists(userID) {
		return protocol.Errorf(protocol.CodeNotFound, "the user has no sessions")
	}
	dir, err := o.dirs.Open(ctx, userID)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	home, err := os.OpenRoot(filepath.Join(dir.Path, "home"))
	if err != nil {
		return fmt.Errorf("open home: %w", err)
	}
	defer func() { _ = home.Close() }()
	return do(home, func(f *os.File) error {
		if os.Geteuid() != 0 {
			return nil // it is
		}
		return f.Chown(dir.UID, dir.GID)
	})
}

// maxLookedAt bounds what neededAttachments reads of one home. A sandbox may have made
// ten thousand sparse transcripts, which cost it nothing.
const maxLookedAt = 2 << 30

// neededAttachments are those that the sessions of a home name.
func neededAttachments(home *os.Root) (map[string]bool, error) {
	infos, err := session.List(home)
	if err != nil {
		return nil, err
	}
	needed := make(map[string]bool)
	left := int64(maxLookedAt)
	for _, info := range infos {
		if left -= info.Bytes; left < 0 {
			return nil, fmt.Errorf("its sessions have more than %d bytes", maxLookedAt)
		}
		lines, err := session.Read(home, info.ID)
		if err != nil {
			return nil, err
		}
		for _, l := range lines {
			for id := range session.Attachments(l) {
				needed[id] = true
			}
		}
	}
	return needed, nil
}
