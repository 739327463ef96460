package tool

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// The shell's statuses for a command that did not start (POSIX, 2.8.2).
const (
	codeCannotRun = 126
	codeNotFound  = 127
)

// lookPath finds a program as execvp(3) does: by the PATH of the environment the
// command will have, not of this process; a name with a slash is relative to dir.
func lookPath(name, dir string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		if !filepath.IsAbs(name) {
			name = filepath.Join(dir, name)
		}
		return name, executable(name)
	}
	found := error(fs.ErrNotExist)
	for _, folder := range filepath.SplitList(pathOf(env)) {
		if !filepath.IsAbs(folder) {
			folder = filepath.Join(dir, folder)
		}
		path := filepath.Join(folder, name)
		err := executable(path)
		if err == nil {
			return path, nil
		}
		if errors.Is(err, fs.ErrPermission) {
			found = err
		}
	}
	return "", found
}

func pathOf(env []string) string {
	for _, e := range slices.Backward(env) { // the last one counts, as in execve's own reading
		if path, ok := strings.CutPrefix(e, "PATH="); ok {
			return path
		}
	}
	return ""
}

func executable(path string) error {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return err
	case info.IsDir() || info.Mode()&0o111 == 0:
		return fs.ErrPermission
	}
	return nil
}

func notStarted(name string, err error) *outcome {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &outcome{Code: codeNotFound, NotStarted: name + ": not found"}
	case errors.Is(err, fs.ErrPermission):
		return &outcome{Code: codeCannotRun, NotStarted: name + ": not executable"}
	case errors.Is(err, syscall.ENOEXEC):
		return &outcome{Code: codeCannotRun, NotStarted: name + ": no program the kernel knows (a script needs a #! line)"}
	case errors.Is(err, syscall.E2BIG):
		return &outcome{Code: codeCannotRun, NotStarted: name + ": arguments too long (one may have 128 KiB)"}
	case errors.Is(err, syscall.EAGAIN):
		return &outcome{Code: codeCannotRun, NotStarted: name + ": the sandbox's limit of processes is reached"}
	}
	return &outcome{Code: codeCannotRun, NotStarted: name + ": " + err.Error()}
}
