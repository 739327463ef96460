package tool

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestProgramsAreFoundAsExecvpFindsThem(t *testing.T) {
	dir := t.TempDir()
	make1 := func(name string, mode os.FileMode) {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	make1("a/tool", 0o644) // there, but not executable
	make1("b/tool", 0o755)
	make1("c/closed", 0o644)
	make1("script", 0o755)
	if err := os.Mkdir(filepath.Join(dir, "a/folder"), 0o755); err != nil {
		t.Fatal(err)
	}
	path := "PATH=" + filepath.Join(dir, "a") + ":" + filepath.Join(dir, "b") + ":" + filepath.Join(dir, "c")
	for _, tt := range []struct {
		name, program string
		env           []string
		want          string
		err           error
	}{
		{"the first that can be executed", "tool", []string{path}, "b/tool", nil},
		{"not executable anywhere", "closed", []string{path}, "", fs.ErrPermission},
		{"nowhere", "nothing", []string{path}, "", fs.ErrNotExist},
		{"a folder is no program", "folder", []string{path}, "", fs.ErrPermission},
		{"no PATH", "tool", nil, "", fs.ErrNotExist},
		{"the last PATH counts", "tool", []string{path, "PATH=/nowhere"}, "", fs.ErrNotExist},
		{"an empty entry is the working directory", "script", []string{"PATH=/nowhere::"}, "script", nil},
		{"a dot is the working directory", "script", []string{"PATH=."}, "script", nil},
		{"a slash makes it relative to the working directory", "./script", []string{path}, "script", nil},
		{"an absolute path is taken as it is", filepath.Join(dir, "script"), nil, "script", nil},
		{"an absolute path that is not there", "/nowhere/x", nil, "/nowhere/x", fs.ErrNotExist},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := lookPath(tt.program, dir, tt.env)
			want := tt.want
			if want != "" && !filepath.IsAbs(want) {
				want = filepath.Join(dir, want)
			}
			if !errors.Is(err, tt.err) || err == nil && got != want {
				t.Errorf("%q, %v; want %q, %v", got, err, want, tt.err)
			}
		})
	}
}
