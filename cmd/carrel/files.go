package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"carrel"
	"carrel/client"
	"carrel/protocol"
)

type filesCmd struct {
	Ls  lsCmd  `cmd:"" help:"List a directory."`
	Get getCmd `cmd:"" help:"Copy a file out, or with --tar an archive of a directory."`
	Put putCmd `cmd:"" help:"Copy a file in, whole or not at all, or with --tar unpack an archive."`
	Rm  rmCmd  `cmd:"" help:"Remove a file, or a directory with all in it."`
}

// fileBackend is who has the files: this process or a daemon.
type fileBackend interface {
	ListFiles(ctx context.Context, userID, path, cursor string) (protocol.FileList, error)
	GetFile(ctx context.Context, userID, path string) (io.ReadCloser, int64, error)
	GetArchive(ctx context.Context, userID, path string) (io.ReadCloser, error)
	PutFile(ctx context.Context, userID, path string, content io.Reader, bytes int64) (protocol.FileInfo, error)
	PutArchive(ctx context.Context, userID, path string, archive io.Reader) (protocol.UnpackResult, error)
	DeleteFile(ctx context.Context, userID, path string) error
}

var (
	_ fileBackend = (*client.Client)(nil)
	_ fileBackend = localFiles{}
)

// withFiles opens the backend for one command, which an interrupt ends.
func (t target) withFiles(ctx context.Context, c *cli, do func(context.Context, fileBackend) error) error {
	b, err := t.open(ctx, c)
	if err != nil {
		return err
	}
	var backend fileBackend
	switch b := b.(type) {
	case remote:
		backend = b.Client
	case *carrel.Orchestrator:
		backend = localFiles{b}
	}
	call, stop := interruptible(ctx, func() {}, func() {})
	defer stop()
	err = do(call, backend)
	if cause := context.Cause(call); err != nil && cause != nil {
		err = cause
	}
	return errors.Join(err, b.Shutdown(ctx))
}

// inside reads a path as people write it: "/workspace/a", "./a/" and "a" are the same.
func inside(name string) string {
	name = path.Clean("/" + name)
	if name == "/workspace" {
		return ""
	}
	return strings.TrimPrefix(strings.TrimPrefix(name, "/workspace/"), "/")
}

type lsCmd struct {
	target

	Path string `arg:"" optional:"" help:"Directory below the workspace." placeholder:"PATH"`
}

func (l *lsCmd) Run(ctx context.Context, c *cli, out *output) error {
	return l.withFiles(ctx, c, func(ctx context.Context, b fileBackend) error {
		for cursor := ""; ; {
			page, err := b.ListFiles(ctx, l.User, inside(l.Path), cursor)
			if err != nil {
				return err
			}
			for _, f := range page.Files {
				if err := printFile(out.stdout, f); err != nil {
					return err
				}
			}
			if cursor = page.NextCursor; cursor == "" {
				return nil
			}
		}
	})
}

// printFile prints a line; a name may hold anything, and must not speak to the terminal.
func printFile(w io.Writer, f protocol.FileInfo) error {
	end := ""
	switch f.Type {
	case protocol.FileDirectory:
		end = "/"
	case protocol.FileLink:
		end = " -> " + oneLine(f.Target)
	case protocol.FileOther:
		end = "?"
	case protocol.FileRegular:
	}
	_, err := fmt.Fprintf(w, "%s %12d %s %s%s\n", f.Mode, f.Size, f.ModifiedAt.Format("2006-01-02 15:04"), oneLine(f.Name), end)
	return err
}

type getCmd struct {
	target

	Tar   bool   `help:"PATH is a directory; write a tar archive of it."`
	Path  string `arg:"" help:"Below the workspace." placeholder:"PATH"`
	Local string `arg:"" optional:"" help:"Where to; \"-\" is standard output. Left out, the same name here." placeholder:"FILE"`
}

func (g *getCmd) Run(ctx context.Context, c *cli, out *output) error {
	from, to := inside(g.Path), g.Local
	if to == "" {
		if to = path.Base("/" + from); to == "/" {
			to = "workspace"
		}
		if g.Tar {
			to += ".tar"
		}
	}
	return g.withFiles(ctx, c, func(ctx context.Context, b fileBackend) error {
		content, size, err := g.open(ctx, b, from)
		if err != nil {
			return err
		}
		defer content.Close()
		if to == "-" {
			_, err := io.Copy(out.stdout, content)
			return err
		}
		p := newProgress(out, size)
		defer p.end()
		return writeWhole(to, io.TeeReader(content, p))
	})
}

func (g *getCmd) open(ctx context.Context, b fileBackend, from string) (io.ReadCloser, int64, error) {
	if g.Tar {
		content, err := b.GetArchive(ctx, g.User, from)
		return content, -1, err
	}
	return b.GetFile(ctx, g.User, from)
}

// writeWhole writes a file of that name only if all of it came.
func writeWhole(name string, content io.Reader) (err error) {
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".part-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = io.Copy(f, content)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

type putCmd struct {
	target

	Tar   bool   `help:"FILE is a tar archive; unpack it below the directory PATH."`
	Local string `arg:"" help:"What to copy; \"-\" is standard input." placeholder:"FILE"`
	Path  string `arg:"" optional:"" help:"Below the workspace; left out, FILE's name, and with --tar the workspace." placeholder:"PATH"`
}

func (p *putCmd) Run(ctx context.Context, c *cli, out *output) error {
	to := inside(p.Path)
	if to == "" && !p.Tar {
		if p.Local == "-" {
			return errors.New("put: name a path for what comes from standard input")
		}
		to = filepath.Base(p.Local)
	}
	from, size, err := openLocal(p.Local)
	if err != nil {
		return err
	}
	defer func() { _ = from.Close() }()
	return p.withFiles(ctx, c, func(ctx context.Context, b fileBackend) error {
		shown := newProgress(out, size)
		defer shown.end()
		content := io.TeeReader(from, shown)
		if p.Tar {
			_, err := b.PutArchive(ctx, p.User, to, content)
			return err
		}
		_, err := b.PutFile(ctx, p.User, to, content, size)
		return err
	})
}

// openLocal opens what is to be copied; its size is -1 where it is no regular file.
func openLocal(name string) (*os.File, int64, error) {
	if name == "-" {
		return os.Stdin, -1, nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err == nil && info.IsDir() {
		err = fmt.Errorf("put: %s is a directory; tar -c -C %s . | carrel files put --tar - PATH", name, name)
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	if !info.Mode().IsRegular() {
		return f, -1, nil
	}
	return f, info.Size(), nil
}

type rmCmd struct {
	target

	Path string `arg:"" help:"Below the workspace." placeholder:"PATH"`
}

func (r *rmCmd) Run(ctx context.Context, c *cli) error {
	return r.withFiles(ctx, c, func(ctx context.Context, b fileBackend) error {
		return b.DeleteFile(ctx, r.User, inside(r.Path))
	})
}
