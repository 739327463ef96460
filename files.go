package carrel

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"time"

	"carrel/internal/audit"
	"carrel/internal/files"
	"carrel/internal/logline"
	"carrel/internal/workspace"
	"carrel/protocol"
)

// removeTimeout bounds how long one removal works on what was removed; the rest is left
// to expiry. Nobody sees it by then.
const removeTimeout = 10 * time.Minute

// File is a file or a directory of a user's, open until Close; the user's directory is
// not removed meanwhile.
type File struct {
	*files.Node

	ctx  func() error
	done func() error
}

// Read reads a file, until whoever opened it gives up or the daemon shuts down.
func (f *File) Read(b []byte) (int, error) {
	if err := f.ctx(); err != nil {
		return 0, err
	}
	return f.Node.Read(b)
}

// Close closes the file.
func (f *File) Close() error { return errors.Join(f.Node.Close(), f.done()) }

// FileUpload is a file, or an archive, on its way to Path below a user's workspace. Bytes
// is how long Body is, negative if that is not known. When decides by the ETag of what
// stands there ("" for nothing) whether it may be replaced; nil = it may.
type FileUpload struct {
	Path  string
	Body  io.Reader
	Bytes int64
	When  func(etag string) error
}

// StoredFile is a file that has come in.
type StoredFile files.Stored

// OpenFile opens a file or a directory below a user's workspace, of which the empty path
// is the workspace itself. Errors: CodeInvalidRequest, CodeNotFound, CodeConflict where
// it is neither or the path leads through a link, CodeShuttingDown.
func (o *Orchestrator) OpenFile(ctx context.Context, userID, path string) (*File, error) {
	use, err := o.useFiles(ctx, userID, false)
	if err != nil {
		return nil, err
	}
	place, err := use.dir.OpenWorkspace()
	if err != nil {
		return nil, errors.Join(err, use.end())
	}
	defer func() { _ = place.Close() }()
	node, err := files.Open(place, path)
	if err != nil {
		return nil, errors.Join(err, use.end())
	}
	return &File{Node: node, ctx: func() error { return context.Cause(use.ctx) }, done: use.end}, nil
}

// PutFile stores a file, whole or not at all, and makes what is missing above it. Errors:
// those of OpenFile, and CodeDiskQuotaExceeded: before anything is read, where the length
// is known.
func (o *Orchestrator) PutFile(ctx context.Context, userID string, u FileUpload) (stored StoredFile, err error) {
	err = o.takeIn(ctx, userID, u, func(ctx context.Context, p files.Place, in files.Upload) error {
		s, err := p.Put(ctx, in)
		stored = StoredFile(s)
		return err
	})
	o.note(ctx, audit.Event{Action: audit.FileStored, UserID: userID, Bytes: stored.Info.Size, Content: u.Path}, err)
	return stored, err
}

// UnpackFiles unpacks a tar archive below a directory, which is made if it is missing.
// See files.Place.Unpack for what is refused.
func (o *Orchestrator) UnpackFiles(ctx context.Context, userID string, u FileUpload) (result protocol.UnpackResult, err error) {
	err = o.takeIn(ctx, userID, u, func(ctx context.Context, p files.Place, in files.Upload) error {
		result, err = p.Unpack(ctx, in)
		return err
	})
	o.note(ctx, audit.Event{Action: audit.ArchiveUnpacked, UserID: userID, Content: u.Path}, err)
	return result, err
}

// takeIn lets take store an upload within the user's quota.
func (o *Orchestrator) takeIn(ctx context.Context, userID string, u FileUpload, take func(context.Context, files.Place, files.Upload) error) (err error) {
	if err := files.CheckPath(u.Path); err != nil {
		return err // and no directory is made for it
	}
	room := o.room.allowance(userID)
	defer room.free()
	if err := room.reserve(ctx, u.Bytes); err != nil {
		return err
	}
	use, err := o.useFiles(ctx, userID, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, use.end()) }()
	return o.staged(use, func(p files.Place) error { //nolint:contextcheck // use has both contexts
		return take(use.ctx, p, files.Upload{Path: u.Path, Body: u.Body, Spend: room.spend, When: u.When})
	})
}

// DeleteFile removes a file, or a directory with all in it; never the workspace itself.
// when is as in FileUpload. It is out of the sandbox's sight at once; what is in it is
// gone when DeleteFile returns, whether or not the caller waits for that.
func (o *Orchestrator) DeleteFile(ctx context.Context, userID, path string, when func(etag string) error) (err error) {
	defer func() { o.note(ctx, audit.Event{Action: audit.FileDeleted, UserID: userID, Content: path}, err) }()
	use, err := o.useFiles(ctx, userID, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, use.end()) }()
	return o.staged(use, func(p files.Place) error { return p.Delete(path, when) }) //nolint:contextcheck // the caller may leave
}

// staged calls do with a stage, which is emptied afterwards.
func (o *Orchestrator) staged(use *fileUse, do func(files.Place) error) error {
	stage, err := use.dir.Stage()
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(use.lasting, removeTimeout)
		defer cancel()
		if err := stage.Close(ctx); err != nil {
			o.log.WarnContext(ctx, "removed files of a user are not all gone yet; they are tried again", slog.Any("error", err))
		}
	}()
	place, err := use.dir.OpenWorkspace()
	if err != nil {
		return err
	}
	defer func() { _ = place.Close() }()
	p := files.Place{Workspace: place, Stage: stage.File, Join: stage.Join, UID: -1, GID: -1, Commit: &o.commits}
	if os.Geteuid() == 0 {
		p.UID, p.GID = use.dir.UID, use.dir.GID
	}
	return do(p)
}

// fileUse is one use of a user's directory by a caller of ours.
type fileUse struct {
	ctx     context.Context //nolint:containedctx // of the one call; shutdown ends it too
	lasting context.Context //nolint:containedctx // the same, and the caller's end does not end it
	dir     *workspace.Dir
	end     func() error
}

// useFiles opens a user's directory for one call; it is not removed before end is called.
// Without create, a user that has none is CodeNotFound.
func (o *Orchestrator) useFiles(ctx context.Context, userID string, create bool) (*fileUse, error) {
	if err := protocol.CheckUserID(userID); err != nil {
		return nil, err
	}
	if err := o.enter(); err != nil {
		return nil, err
	}
	if !create && !o.dirs.Exists(userID) {
		o.runsWG.Done()
		return nil, protocol.Errorf(protocol.CodeNotFound, "the user has no files")
	}
	dir, err := o.dirs.Open(ctx, userID)
	if err != nil {
		o.runsWG.Done()
		return nil, err
	}
	ctx = logline.Carry(ctx, ctx)
	logline.Fill(ctx, logline.Fields{UserID: userID})
	lasting, cancelLasting := context.WithCancelCause(context.WithoutCancel(ctx))
	ctx, cancelCall := context.WithCancelCause(ctx)
	cancel := func(cause error) { cancelCall(cause); cancelLasting(cause) }
	key := newID("files_")
	o.mu.Lock()
	o.going[key] = &goingRun{cancel: cancel} // for a shutdown; no caller knows its name
	o.mu.Unlock()
	return &fileUse{ctx: ctx, lasting: lasting, dir: dir, end: func() error {
		defer o.runsWG.Done()
		cancel(nil)
		o.mu.Lock()
		delete(o.going, key)
		o.mu.Unlock()
		return dir.Close()
	}}, nil
}
