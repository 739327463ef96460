package files

import (
	"context"
	"errors"

	"golang.org/x/sys/unix"

	"carrel/internal/beneath"
	"carrel/protocol"
)

// show moves the tree from the stage to a path of the workspace.
func (p Place) show(ctx context.Context, tree, path string) error {
	p.Commit.Lock()
	defer p.Commit.Unlock()
	stage := int(p.Stage.Fd())
	if path == "" {
		root, err := beneath.OpenPlace(int(p.Workspace.Fd()), ".")
		if err != nil {
			return err
		}
		defer beneath.Close(root)
		return merge(ctx, stage, tree, root)
	}
	above, name := split(path)
	dir, err := p.parent(above, true)
	if err != nil {
		return err
	}
	defer beneath.Close(dir)
	return place(ctx, stage, tree, dir, name)
}

// place moves one name from a directory of the stage into one of the workspace. A
// directory that is there takes in what a directory brings; else the new one replaces
// the old one, unless exactly one of them is a directory.
func place(ctx context.Context, from int, name string, to int, as string) error {
	err := unix.Renameat2(from, name, to, as, unix.RENAME_NOREPLACE)
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstatat(from, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		err := unix.Renameat(from, name, to, as)
		if errors.Is(err, unix.EISDIR) || errors.Is(err, unix.EEXIST) || errors.Is(err, unix.ENOTEMPTY) {
			return protocol.Errorf(protocol.CodeConflict, "%.200q is a directory, and in the archive it is none", as)
		}
		return err
	}
	dir, err := beneath.OpenPlace(to, as)
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return protocol.Errorf(protocol.CodeConflict, "%.200q is no directory, and in the archive it is one", as)
	}
	if err != nil {
		return err
	}
	defer beneath.Close(dir)
	return merge(ctx, from, name, dir)
}

// merge moves all that is in the directory name of the stage into dir. It goes as deep as
// an archive may.
func merge(ctx context.Context, from int, name string, dir int) error {
	fd, err := beneath.OpenDir(from, name)
	if err != nil {
		return err
	}
	defer beneath.Close(fd)
	return eachEntry(ctx, fd, func(e beneath.Entry) (bool, error) {
		return true, place(ctx, fd, e.Name, dir, e.Name)
	})
}
