package files

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"golang.org/x/sys/unix"

	"carrel/internal/beneath"
	"carrel/protocol"
)

// maxArchiveDepth bounds how deep an archive's tree is, either way: one descriptor is
// open for each level.
const maxArchiveDepth = 128

// packer writes one archive.
type packer struct {
	tar     *tar.Writer
	omitted int
}

// Archive writes what is below a directory as a tar archive (pax): regular files,
// directories, and links as links. What is neither, what lies deeper than 128 levels
// and what cannot be opened is left out, and counted. A file that shrinks meanwhile
// ends the archive with an error, since what was promised of it cannot be given.
func (n *Node) Archive(ctx context.Context, w io.Writer) (omitted int, err error) {
	if n.st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return 0, protocol.Errorf(protocol.CodeConflict, "%.200q is no directory", n.name)
	}
	p := &packer{tar: tar.NewWriter(w)}
	if err := p.directory(ctx, int(n.file.Fd()), "", 0); err != nil {
		return p.omitted, fmt.Errorf("archive: %w", err)
	}
	return p.omitted, p.tar.Close()
}

// directory adds what is in an open directory, whose name in the archive is prefix.
func (p *packer) directory(ctx context.Context, fd int, prefix string, depth int) error {
	if _, err := unix.Seek(fd, 0, unix.SEEK_SET); err != nil {
		return err
	}
	return eachEntry(ctx, fd, func(e beneath.Entry) (bool, error) {
		return true, p.entry(ctx, fd, e.Name, prefix+e.Name, depth)
	})
}

func (p *packer) entry(ctx context.Context, dir int, name, path string, depth int) error {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return ignoreGone(err)
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return p.file(ctx, dir, name, path)
	case unix.S_IFLNK:
		target, err := readLink(dir, name)
		if err != nil {
			p.omitted++
			return nil //nolint:nilerr // replaced meanwhile
		}
		return p.header(&st, &tar.Header{Typeflag: tar.TypeSymlink, Name: path, Linkname: target})
	case unix.S_IFDIR:
		if depth+1 >= maxArchiveDepth || len(path) > maxPathBytes {
			p.omitted++
			return nil
		}
		fd, err := beneath.OpenDir(dir, name)
		if err != nil {
			return p.leftOut(err)
		}
		defer beneath.Close(fd)
		if err := p.header(&st, &tar.Header{Typeflag: tar.TypeDir, Name: path + "/"}); err != nil {
			return err
		}
		return p.directory(ctx, fd, path+"/", depth+1)
	}
	p.omitted++
	return nil
}

// file adds a regular file, by what it is once it is open.
func (p *packer) file(ctx context.Context, dir int, name, path string) error {
	place, err := beneath.Open(dir, name, unix.O_PATH, 0)
	if err != nil {
		return p.leftOut(err)
	}
	n, err := openPlace(place, name)
	if err != nil {
		return p.leftOut(err)
	}
	defer func() { _ = n.Close() }()
	if n.st.Mode&unix.S_IFMT != unix.S_IFREG {
		p.omitted++
		return nil
	}
	if err := p.header(&n.st, &tar.Header{Typeflag: tar.TypeReg, Name: path, Size: n.st.Size}); err != nil {
		return err
	}
	_, err = io.Copy(p.tar, withContext(ctx, n))
	return explain(path, err)
}

func (p *packer) header(st *unix.Stat_t, h *tar.Header) error {
	h.Mode, h.ModTime, h.Format = int64(st.Mode&0o777), modifiedAt(st).Truncate(time.Second), tar.FormatPAX
	return p.tar.WriteHeader(h)
}

// leftOut counts what cannot be opened; one that is gone does not count.
func (p *packer) leftOut(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.ELOOP), errors.Is(err, unix.EXDEV),
		errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.EAGAIN), protocol.CodeOf(err) == protocol.CodeConflict:
		p.omitted++
		return nil
	}
	return err
}

func ignoreGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// contextReader ends with its context.
type contextReader struct {
	done func() error
	io.Reader
}

func withContext(ctx context.Context, r io.Reader) io.Reader {
	return contextReader{func() error { return context.Cause(ctx) }, r}
}

func (r contextReader) Read(b []byte) (int, error) {
	if err := r.done(); err != nil {
		return 0, err
	}
	return r.Reader.Read(b)
}
