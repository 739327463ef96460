package files

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"carrel/internal/beneath"
	"carrel/protocol"
)

const (
	// maxArchiveEntries bounds the names that one archive makes.
	maxArchiveEntries = 100_000
	// entryBytes is what a name costs besides its content: an inode, and a block that
	// may be nearly empty.
	entryBytes = 4 << 10
)

// Unpack puts the files of a tar archive below the directory at a path, which is made if
// it is missing. What is there and has no namesake in the archive stays.
//
// The archive is unpacked in the stage first: one that is broken, too large or refused
// changes nothing. Then it appears: as a whole, where the directory is new; else in
// steps, each the rename of a file, or of a directory that was not there.
//
// Refused are names that are absolute or have "..", links that lead out of the archive's
// own tree, hard links, devices, pipes, set-id bits, a name given twice, and more than
// 100,000 names or 128 levels. Owners in the archive mean nothing.
func (p Place) Unpack(ctx context.Context, u Upload) (protocol.UnpackResult, error) {
	var result protocol.UnpackResult
	if err := CheckPath(u.Path); err != nil {
		return result, err
	}
	// First, so that links are under the quota as well: they cannot be put there later.
	if err := p.Join(ctx); err != nil {
		return result, err
	}
	tree, err := p.makeDir()
	if err != nil {
		return result, explain(u.Path, err)
	}
	fd, err := beneath.OpenDir(int(p.Stage.Fd()), tree)
	if err != nil {
		return result, explain(u.Path, err)
	}
	defer beneath.Close(fd)
	w := &unpacker{place: p, tree: fd, spend: u.Spend}
	if err := w.unpack(ctx, u.Body); err != nil {
		return result, explain(u.Path, err)
	}
	result.Entries = w.entries
	if err := unix.Syncfs(fd); err != nil {
		return result, explain(u.Path, err)
	}
	return result, explain(u.Path, p.show(ctx, tree, u.Path))
}

// unpacker fills a directory in the stage.
type unpacker struct {
	place   Place
	tree    int
	spend   func(context.Context, int64) error
	entries int
}

func (w *unpacker) unpack(ctx context.Context, body io.Reader) error {
	archive := tar.NewReader(body)
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if errors.Is(err, tar.ErrHeader) {
			return refuse("it is no tar archive, or broken")
		}
		if err != nil {
			return fmt.Errorf("read archive: %w", err)
		}
		name, err := nameOf(h)
		if err != nil {
			return err
		}
		if name == "" {
			continue // the tree itself, or what tells of the whole archive
		}
		if err := w.entry(ctx, archive, h, name); err != nil {
			return fmt.Errorf("unpack %.200q: %w", name, err)
		}
	}
}

// count lets one more name be made.
func (w *unpacker) count(ctx context.Context) error {
	if w.entries++; w.entries > maxArchiveEntries {
		return refuse("it has more than %d entries", maxArchiveEntries)
	}
	return w.spend(ctx, entryBytes)
}

// refuse tells why an archive is not unpacked.
func refuse(format string, args ...any) error {
	return protocol.Errorf(protocol.CodeInvalidRequest, "archive: "+format, args...)
}

// nameOf checks an entry and returns its path, "" if there is nothing to make.
func nameOf(h *tar.Header) (string, error) {
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeDir, tar.TypeSymlink:
	case tar.TypeXGlobalHeader:
		return "", nil
	case tar.TypeLink:
		return "", refuse("%.200q is a hard link, which is refused", h.Name)
	default:
		return "", refuse("%.200q is no file, directory or symbolic link", h.Name)
	}
	name := strings.TrimSuffix(h.Name, "/")
	for strings.HasPrefix(name, "./") {
		name = strings.TrimPrefix(name, "./")
	}
	if name == "." || name == "" {
		if h.Typeflag != tar.TypeDir {
			return "", refuse("an entry has no name")
		}
		return "", nil
	}
	if strings.HasPrefix(name, "/") {
		return "", refuse("%.200q is absolute", h.Name)
	}
	if err := CheckPath(name); err != nil {
		return "", refuse("%.200q: %w", h.Name, err)
	}
	if strings.Count(name, "/") >= maxArchiveDepth {
		return "", refuse("%.200q is deeper than %d levels", h.Name, maxArchiveDepth)
	}
	if h.Mode&0o6000 != 0 {
		return "", refuse("%.200q has a set-id bit", h.Name)
	}
	if h.Typeflag == tar.TypeSymlink && leadsOut(name, h.Linkname) {
		return "", refuse("%.200q is a link that leads out of the archive", h.Name)
	}
	return name, nil
}

// leadsOut reports whether a link's target, read as text, lies outside of the tree.
// Nothing here relies on it: no link is followed, and the sandbox may make any.
func leadsOut(name, target string) bool {
	if target == "" || path.IsAbs(target) || strings.IndexByte(target, 0) >= 0 {
		return true
	}
	reached := path.Join(path.Dir(name), target)
	return reached == ".." || strings.HasPrefix(reached, "../")
}

// entry makes one entry. Nobody else is at the tree; a link of the archive's own that
// stands in the path is refused by the kernel.
func (w *unpacker) entry(ctx context.Context, content io.Reader, h *tar.Header, name string) error {
	above, base := split(name)
	dir, err := w.directory(ctx, above)
	if err != nil {
		return twice(err)
	}
	defer beneath.Close(dir)
	if err := w.count(ctx); err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeDir:
		fd, err := w.makeDir(dir, base)
		if err != nil {
			return twice(err)
		}
		defer beneath.Close(fd)
		return w.place.own(fd, uint32(h.Mode)&0o777|beneath.OwnerOnly)
	case tar.TypeSymlink:
		if err := unix.Symlinkat(h.Linkname, dir, base); err != nil {
			return twice(err)
		}
		if w.place.UID < 0 {
			return nil
		}
		return unix.Fchownat(dir, base, w.place.UID, w.place.GID, unix.AT_SYMLINK_NOFOLLOW)
	}
	return w.file(ctx, dir, base, h, content)
}

func (w *unpacker) file(ctx context.Context, dir int, name string, h *tar.Header, content io.Reader) error {
	fd, err := beneath.Open(dir, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o600)
	if err != nil {
		return twice(err)
	}
	file := os.NewFile(uintptr(fd), name)
	defer func() { _ = file.Close() }()
	if err := pour(ctx, file, content, w.spend); err != nil {
		return err
	}
	if err := w.place.own(fd, uint32(h.Mode)&0o777); err != nil {
		return err
	}
	at := unix.NsecToTimeval(clampTime(h.ModTime).UnixNano())
	return unix.Futimes(fd, []unix.Timeval{at, at})
}

// clampTime keeps a time within what nanoseconds in 64 bits can say.
func clampTime(t time.Time) time.Time {
	first, last := time.Unix(0, 0), time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)
	switch {
	case t.Before(first):
		return first
	case t.After(last):
		return last
	}
	return t
}

// directory opens the directory at a path of the tree, and makes what is missing.
func (w *unpacker) directory(ctx context.Context, path string) (int, error) {
	fd, err := beneath.OpenPlace(w.tree, ".")
	if err != nil || path == "" {
		return fd, err
	}
	for name := range strings.SplitSeq(path, "/") {
		next, err := beneath.OpenPlace(fd, name)
		if errors.Is(err, unix.ENOENT) {
			if err = w.count(ctx); err == nil {
				next, err = w.makeDir(fd, name)
			}
		}
		beneath.Close(fd)
		if err != nil {
			return -1, err
		}
		fd = next
	}
	return fd, nil
}

func (w *unpacker) makeDir(dir int, name string) (int, error) {
	err := unix.Mkdirat(dir, name, beneath.OwnerOnly)
	isNew := err == nil
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return -1, err
	}
	fd, err := beneath.OpenPlace(dir, name)
	if err == nil && isNew {
		err = w.place.own(fd, dirMode)
	}
	return fd, err
}

// twice names what an archive does when a name of it stands in its own way.
func twice(err error) error {
	if errors.Is(err, unix.EEXIST) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return refuse("the name is given twice, or lies below a file or a link of the archive: %w", err)
	}
	return err
}
