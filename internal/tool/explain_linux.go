package tool

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"carrel/internal/jail"
)

// allowedPlaces says what jail.systemRules allow the tool tier, in a sentence.
const allowedPlaces = "the sandbox lets tools write below /workspace, /tmp and /dev/shm only, and besides read /usr, /bin, /sbin, /lib*, /etc, /proc and /dev"

const noNetwork = "the sandbox has no network: nothing outside of it can be reached, whatever the address"

// explain says what stood in the way at a path, so that a model can tell a rule of
// the sandbox from a mistake of its own.
func explain(err error, at string) Result {
	if e, ok := errors.AsType[*notRegularError](err); ok {
		return failf("%s", e)
	}
	real := resolve(at)
	leads := ""
	if real != at {
		leads = " (it leads to " + real + ")"
	}
	switch {
	case errors.Is(err, fs.ErrPermission), errors.Is(err, unix.EROFS):
		if own(real) {
			return failf("%s%s: the file's or directory's own mode does not allow it", at, leads)
		}
		return failf("%s%s: denied by the sandbox: %s", at, leads, allowedPlaces)
	case errors.Is(err, fs.ErrNotExist) && !own(real):
		return failf("%s%s: no such file or directory; %s", at, leads, allowedPlaces)
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

// own reports whether a path is in one of the places that are the user's.
func own(p string) bool {
	for _, place := range []string{jail.WorkspaceDir, "/tmp", "/dev/shm"} {
		if p == place || strings.HasPrefix(p, place+"/") {
			return true
		}
	}
	return false
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

// explainOutput looks, in what a failed command printed, for the kernel's words
// where a rule of the sandbox is behind them.
func explainOutput(text string) []string {
	says := func(words ...string) bool {
		for _, w := range words {
			if strings.Contains(text, w) {
				return true
			}
		}
		return false
	}
	var notes []string
	switch {
	case says("Network is unreachable", "ould not resolve", "Temporary failure in name resolution", "Name or service not known",
		"connect: ", "ailed to connect", "ould not connect", "/dev/tcp/", "/dev/udp/", "urlopen error", "EAI_AGAIN", "new connection"):
		notes = append(notes, noNetwork)
	case says("Permission denied", "Operation not permitted", "Read-only file system"):
		notes = append(notes, "if the sandbox denied it: "+allowedPlaces+"; nothing can become root, mount or load")
	}
	if says("Resource temporarily unavailable", "Cannot fork", "cannot fork") {
		notes = append(notes, "the sandbox's limit of processes is reached")
	}
	if says("No space left on device", "Disk quota exceeded", "File too large", "File size limit exceeded") {
		notes = append(notes, "a limit of the sandbox's disk is reached: remove what is not needed")
	}
	return notes
}
