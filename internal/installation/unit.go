package installation

import (
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// unitDirs are where systemd looks for units, what counts most first (systemd.unit(5)).
var unitDirs = []string{"etc/systemd/system", "run/systemd/system", "usr/local/lib/systemd/system", "usr/lib/systemd/system", "lib/systemd/system"}

// Unit is a unit's file with its drop-ins, as systemd reads them: by key, each value in
// the order in which it stands. An empty value takes away what stands before it.
type Unit struct {
	Path     string // of the file; "" where it is not installed
	settings map[string][]string
}

// readUnit reads a unit. One that is not installed is no error.
func readUnit(root fs.FS, name string) (Unit, error) {
	u := Unit{settings: make(map[string][]string)}
	var dropIns []string
	for _, dir := range unitDirs {
		file := path.Join(dir, name)
		if text, err := fs.ReadFile(root, file); err == nil && u.Path == "" {
			u.Path = "/" + file
			u.add(string(text))
		} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return u, err
		}
		found, err := fs.Glob(root, path.Join(dir, name+".d", "*.conf"))
		if err != nil {
			return u, err
		}
		for _, f := range found {
			// A drop-in hides one of the same name in a directory that counts less.
			if !slices.ContainsFunc(dropIns, func(have string) bool { return path.Base(have) == path.Base(f) }) {
				dropIns = append(dropIns, f)
			}
		}
	}
	if u.Path == "" {
		return u, nil
	}
	slices.SortFunc(dropIns, func(a, b string) int { return strings.Compare(path.Base(a), path.Base(b)) })
	for _, f := range dropIns {
		text, err := fs.ReadFile(root, f)
		if err != nil {
			return u, err
		}
		u.add(string(text))
	}
	return u, nil
}

// add reads a file of a unit. Sections do not matter: no key that is asked for stands in
// two.
func (u *Unit) add(text string) {
	text = strings.ReplaceAll(text, "\\\n", " ")
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.ContainsAny(line[:1], "#;[") {
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok {
			continue
		}
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		if value == "" {
			u.settings[key] = nil
			continue
		}
		u.settings[key] = append(u.settings[key], value)
	}
}

// last is the value that is in force where one line takes the other's place; "" if
// there is none.
func (u *Unit) last(key string) string {
	if values := u.settings[key]; len(values) > 0 {
		return values[len(values)-1]
	}
	return ""
}

// isOn reports whether a switch is set, by any word but those for no.
func (u *Unit) isOn(key string) bool {
	switch strings.ToLower(u.last(key)) {
	case "", "no", "false", "off", "0", "default", "all":
		return false
	}
	return true
}
