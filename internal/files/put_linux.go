package files

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"carrel/internal/beneath"
	"carrel/protocol"
)

// Upload is a file on its way in.
type Upload struct {
	Path string
	Body io.Reader
	// Spend is asked before that many bytes are written; its error ends the upload.
	Spend func(ctx context.Context, bytes int64) error
	When  Condition // asked before anything is read, and again at the end
}

// Stored is a file that has come in.
type Stored struct {
	Info    protocol.FileInfo
	ETag    string // empty if the sandbox changed it already
	Created bool   // nothing stood at its name
}

// Put stores a file, whole or not at all, and makes the directories above it. It takes
// the place of a file, a link or a pipe, never of a directory. Its mode is that of the
// file it replaces, without set-id bits, or 0644. Errors: CodeInvalidRequest,
// CodeConflict, CodeDiskQuotaExceeded; what Body, Spend and When return.
func (p Place) Put(ctx context.Context, u Upload) (Stored, error) {
	if err := CheckPath(u.Path); err != nil {
		return Stored{}, err
	}
	if u.Path == "" {
		return Stored{}, protocol.Errorf(protocol.CodeInvalidRequest, "path: the workspace itself is no file")
	}
	if err := p.precheck(u); err != nil {
		return Stored{}, err
	}
	fd, err := beneath.Open(int(p.Stage.Fd()), "file", unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o600)
	if err != nil {
		return Stored{}, explain(u.Path, err)
	}
	file := os.NewFile(uintptr(fd), u.Path)
	defer func() { _ = file.Close() }()
	if err := pour(ctx, file, u.Body, u.Spend); err != nil {
		return Stored{}, explain(u.Path, err)
	}
	if err := file.Sync(); err != nil {
		return Stored{}, explain(u.Path, err)
	}
	if err := p.Join(ctx); err != nil {
		return Stored{}, err
	}
	s, err := p.commit(u, file)
	return s, explain(u.Path, err)
}

// precheck refuses early what commit would refuse in the end.
func (p Place) precheck(u Upload) error {
	above, name := split(u.Path)
	dir, err := p.parent(above, false)
	if errors.Is(err, unix.ENOENT) {
		return u.When.check("") // its directories are made when it is whole
	}
	if err != nil {
		return explain(u.Path, err)
	}
	defer beneath.Close(dir)
	st, _, err := current(dir, name, u.When)
	if err == nil {
		err = replaceable(u.Path, &st)
	}
	return explain(u.Path, err)
}

func replaceable(path string, st *unix.Stat_t) error {
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return protocol.Errorf(protocol.CodeConflict, "%.200q is a directory", path)
	}
	return nil
}

// pieceBytes is how much is asked for at a time.
const pieceBytes = 128 << 10

// pour writes a body to a file, each piece after it was allowed.
func pour(ctx context.Context, file io.Writer, body io.Reader, spend func(context.Context, int64) error) error {
	buf := make([]byte, pieceBytes)
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		count, err := body.Read(buf)
		if count > 0 {
			if err := spend(ctx, int64(count)); err != nil {
				return err
			}
			if _, err := file.Write(buf[:count]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read body: %w", err)
		}
	}
}

// commitAttempts is how often the sandbox may make and remove the name between our look
// at it and the rename.
const commitAttempts = 16

// commit shows the staged file at its path.
func (p Place) commit(u Upload, file *os.File) (Stored, error) {
	p.Commit.Lock()
	defer p.Commit.Unlock()
	above, name := split(u.Path)
	dir, err := p.parent(above, true)
	if err != nil {
		return Stored{}, err
	}
	defer beneath.Close(dir)
	for range commitAttempts {
		st, exists, err := current(dir, name, u.When)
		if err != nil {
			return Stored{}, err
		}
		if err := replaceable(u.Path, &st); exists && err != nil {
			return Stored{}, err
		}
		mode, flags := uint32(fileMode), uint(unix.RENAME_NOREPLACE)
		if exists {
			flags = 0
		}
		if exists && st.Mode&unix.S_IFMT == unix.S_IFREG {
			mode = st.Mode & 0o777
		}
		if err := p.own(int(file.Fd()), mode); err != nil {
			return Stored{}, err
		}
		var before unix.Stat_t
		if err := unix.Fstat(int(file.Fd()), &before); err != nil {
			return Stored{}, err
		}
		err = unix.Renameat2(int(p.Stage.Fd()), "file", dir, name, flags)
		if errors.Is(err, unix.EEXIST) || errors.Is(err, unix.EISDIR) {
			continue // somebody made it since
		}
		if err != nil {
			return Stored{}, err
		}
		return stored(name, file, &before, !exists), nil
	}
	return Stored{}, protocol.Errorf(protocol.CodeConflict, "%.200q is changed all the time", u.Path)
}

// stored tells of the file that has its name now. The rename changed its time of
// change, so the ETag is read afterwards; a sandbox that wrote to it by then must not
// have its own content taken for ours.
func stored(name string, file *os.File, before *unix.Stat_t, created bool) Stored {
	s := Stored{Info: infoOf(name, before, ""), Created: created}
	var after unix.Stat_t
	if unix.Fstat(int(file.Fd()), &after) == nil && after.Mtim == before.Mtim && after.Size == before.Size {
		s.ETag = etagOf(&after)
	}
	return s
}
