package tool

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// maxEditBytes bounds a file that is edited: it is held in memory twice.
const maxEditBytes = 8 << 20

// write replaces a file, or makes it, with all directories above it.
func (o *fileOp) write() Result {
	real := resolve(o.path) // a link stays one: what it leads to is written
	info, err := os.Stat(real)
	switch {
	case err == nil && !info.Mode().IsRegular():
		return o.explain(notRegular(o.path, info.Mode()), o.path)
	case err == nil:
		err = unix.Access(real, unix.W_OK) // the rename would go past the file's own mode
	case errors.Is(err, fs.ErrNotExist):
		info = nil
		err = os.MkdirAll(filepath.Dir(real), 0o755)
	}
	if err == nil {
		err = replace(real, []byte(o.Input.Content), info)
	}
	if err != nil {
		return o.explain(err, o.path)
	}
	what := "made"
	if info != nil {
		what = "replaced"
	}
	return plainResult(fmt.Sprintf("%s %s: %d bytes", what, o.path, len(o.Input.Content)))
}

// edit replaces a text that stands in a file once, or each of its places.
func (o *fileOp) edit() Result {
	old, with := []byte(o.Input.Old), []byte(o.Input.New)
	switch {
	case len(old) == 0:
		return failf("old_string: must not be empty; to make a file, use write")
	case bytes.Equal(old, with):
		return failf("old_string and new_string are the same")
	}
	real := resolve(o.path)
	content, info, err := readWhole(real)
	if err != nil {
		return o.explain(err, o.path)
	}
	if info.Size() > maxEditBytes {
		return failf("%s has %d bytes; edit takes files of at most %d: use bash (sed)", o.path, info.Size(), maxEditBytes)
	}
	count := bytes.Count(content, old)
	switch {
	case count == 0:
		return failf("%s: old_string does not stand in the file; read it again and copy the text exactly, white space included", o.path)
	case count > 1 && !o.Input.ReplaceAll:
		return failf("%s: old_string stands in the file %d times (lines %s); give more of the text around it, or set replace_all",
			o.path, count, places(content, old))
	case len(content)+count*(len(with)-len(old)) > maxEditBytes:
		return failf("%s: the file would have more than %d bytes", o.path, maxEditBytes)
	}
	where := places(content, old)
	if err := unix.Access(real, unix.W_OK); err != nil {
		return o.explain(err, o.path)
	}
	// Somebody else may have written since: what they wrote must not get lost.
	if now, err := os.Lstat(real); err != nil || !os.SameFile(info, now) || now.Size() != info.Size() || !now.ModTime().Equal(info.ModTime()) {
		return failf("%s was changed while it was edited; read it again", o.path)
	}
	if err := replace(real, bytes.ReplaceAll(content, old, with), info); err != nil {
		return o.explain(err, o.path)
	}
	return plainResult(fmt.Sprintf("edited %s: %d of %d places, line %s", o.path, count, count, where))
}

func plainResult(text string) Result { return Result{Content: text, Bytes: int64(len(text))} }

// readWhole reads a file; of one that is too big to edit, or that grows, it reads
// one byte more than may be.
func readWhole(path string) ([]byte, os.FileInfo, error) {
	f, info, err := openRegular(path)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = f.Close() }()
	content, err := io.ReadAll(io.LimitReader(f, maxEditBytes+1))
	return content, info, err
}

// places lists the lines of the first few places.
func places(content, text []byte) string {
	const most = 10
	var b bytes.Buffer
	line, at := 1, 0
	for n := range most + 1 {
		i := bytes.Index(content[at:], text)
		if i < 0 {
			break
		}
		if n == most {
			b.WriteString(" …")
			break
		}
		line += bytes.Count(content[at:at+i], []byte("\n"))
		if n > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%d", line)
		line += bytes.Count(text, []byte("\n"))
		at += i + len(text)
	}
	return b.String()
}

// replace puts content in a file's place by renaming, so that no reader ever sees
// half of it. was is the file that is replaced, whose mode is kept, or nil.
func replace(path string, content []byte, was os.FileInfo) error {
	temporary := filepath.Join(filepath.Dir(path), ".carrel-"+rand.Text()+".tmp")
	mode := os.FileMode(0o666) // less the umask
	if was != nil {
		mode = 0o600
	}
	f, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil && was != nil {
		err = f.Chmod(was.Mode().Perm()) // and no set-user-id bit for another content
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(temporary, path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temporary))
	}
	return nil
}
