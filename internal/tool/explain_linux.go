package tool

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"carrel/internal/denial"
	"carrel/protocol"
)

// explain says what stood in the way at a path, so that a model can tell a rule of
// the sandbox from a mistake of its own.
func (o *fileOp) explain(err error, at string) Result {
	if e, ok := errors.AsType[*notRegularError](err); ok {
		return failf("%s", e)
	}
	real := resolve(at)
	denied := denial.OfError(err, real, o.Tool == writeName || o.Tool == editName)
	r := explain(err, at, real, denied)
	r.Denial = denied
	return r
}

func explain(err error, at, real string, denied *protocol.Denial) Result {
	leads := ""
	if real != at {
		leads = " (it leads to " + real + ")"
	}
	switch {
	case errors.Is(err, fs.ErrPermission), errors.Is(err, unix.EROFS):
		if denied == nil {
			return failf("%s%s: the file's or directory's own mode does not allow it", at, leads)
		}
		return failf("%s%s: denied by the sandbox (%s): %s", at, leads, denied.Layer, denial.Places)
	case errors.Is(err, fs.ErrNotExist) && !denial.Own(real):
		return failf("%s%s: no such file or directory; %s", at, leads, denial.Places)
	case errors.Is(err, fs.ErrNotExist):
		return failf("%s%s: no such file or directory", at, leads)
	case errors.Is(err, unix.ENOSPC):
		return failf("%s: no space left: the limit of the sandbox's file system is reached", at)
	case errors.Is(err, unix.EDQUOT):
		return failf("%s: the disk quota of this user is used up", at)
	case errors.Is(err, unix.EFBIG):
		return failf("%s: the sandbox's limit of one file's size is reached", at)
	}
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		err = e.Err // the path, which may be that of a temporary file, is said already
	}
	return failf("%s: %s", at, err)
}

// maxLinks is how many links the kernel follows in one path (MAXSYMLINKS).
const maxLinks = 40

// resolve follows the links in a path as far as they can be read; what is not
// there, or not to be seen, is taken as it stands.
func resolve(p string) string {
	done, todo := "/", strings.Split(path.Clean(p), "/")
	for links := 0; len(todo) > 0; {
		name := todo[0]
		todo = todo[1:]
		if name == "" || name == "." {
			continue
		}
		if name == ".." {
			done = path.Dir(done)
			continue
		}
		next := path.Join(done, name)
		target, err := os.Readlink(next)
		if links++; err != nil || links > maxLinks {
			done = next
			continue
		}
		if filepath.IsAbs(target) {
			done = "/"
		}
		todo = append(strings.Split(target, "/"), todo...)
	}
	return done
}
