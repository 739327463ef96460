package tool

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// maxEntries bounds the names that one search looks at, and so its memory.
	maxEntries = 200_000
	// maxDepth bounds how deep it goes: each level is a directory to come back to.
	maxDepth = 100
)

// errEnough ends a walk that has found what there is room for.
var errEnough = errors.New("enough")

// walker goes through a tree, by name, without following a link.
type walker struct {
	late  func() bool
	visit func(rel string, e fs.DirEntry) error // of all but directories
	// skipDir, if set, says which directories are passed by.
	skipDir func(rel string) bool

	seen    int
	refused int    // directories that could not be read
	stopped string // why not everything was looked at; "" = it was
}

// walk goes through root. Its error is that of root itself, or visit's.
func (w *walker) walk(root string) error {
	err := w.dir(root, "", 0)
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

func (w *walker) dir(at, rel string, depth int) error {
	entries, err := w.list(at)
	if err != nil {
		if rel == "" {
			return err
		}
		w.refused++
		return nil
	}
	for _, e := range entries {
		name := path.Join(rel, e.Name())
		switch {
		case w.late():
			w.stopped = errLate.Error()
			return errEnough
		case !e.IsDir():
			err = w.visit(name, e)
		case w.skipDir != nil && w.skipDir(name):
		case depth >= maxDepth:
			w.stopped = fmt.Sprintf("directories more than %d deep were left out", maxDepth)
		default:
			err = w.dir(path.Join(at, e.Name()), name, depth+1)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// list reads a directory, sorted, as far as the search's bound allows. The
// directory is closed before its own directories are opened.
func (w *walker) list(at string) ([]fs.DirEntry, error) {
	f, err := os.OpenFile(at, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	var all []fs.DirEntry
	for {
		some, err := f.ReadDir(min(1024, maxEntries-w.seen))
		all = append(all, some...)
		w.seen += len(some)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if w.seen >= maxEntries {
			w.stopped = fmt.Sprintf("the search was stopped after %d names", maxEntries)
			break
		}
	}
	slices.SortFunc(all, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return all, nil
}

// notes say what was not looked at.
func (w *walker) notes() []string {
	var notes []string
	if w.stopped != "" {
		notes = append(notes, w.stopped)
	}
	if w.refused > 0 {
		notes = append(notes, fmt.Sprintf("%d directories could not be read", w.refused))
	}
	return notes
}
