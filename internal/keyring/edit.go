package keyring

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"carrel/protocol"
)

// secretPrefix lets people, and scanners of repositories, see what a key is.
const secretPrefix = "carrel_"

// Add makes a key, puts its line at the end of the file, which it makes if there is
// none, and returns the key, which is kept nowhere. CodeConflict if there is a key
// of that name.
func Add(path string, key Key) (secret string, err error) {
	if err := key.Check(); err != nil {
		return "", err
	}
	random := make([]byte, 32)
	_, _ = rand.Read(random) // never fails
	secret = secretPrefix + base64.RawURLEncoding.EncodeToString(random)
	key.hash = sha256.Sum256([]byte(secret))
	err = edit(path, func(text []byte, keys []Key) ([]byte, error) {
		if has(keys, key.Name) {
			return nil, protocol.Errorf(protocol.CodeConflict, "there is a key %q already; remove it first, or choose another name", key.Name)
		}
		if len(text) > 0 && !bytes.HasSuffix(text, []byte("\n")) {
			text = append(text, '\n')
		}
		return append(text, key.line()+"\n"...), nil
	})
	if err != nil {
		return "", err
	}
	return secret, nil
}

// Remove takes a key off the file; CodeNotFound if there is none of that name.
func Remove(path, name string) error {
	return edit(path, func(text []byte, keys []Key) ([]byte, error) {
		if !has(keys, name) {
			return nil, protocol.Errorf(protocol.CodeNotFound, "there is no key %q; carrel key list shows those there are", name)
		}
		var kept []byte
		for line := range bytes.Lines(text) {
			if nameOf(line) != name {
				kept = append(kept, line...)
			}
		}
		return kept, nil
	})
}

// edit puts what change makes of the file in its place, whole or not at all. Two
// that edit at a time do it one after the other: they take turns by a lock on the
// directory, since the file itself is another one after each.
func edit(path string, change func(text []byte, keys []Key) ([]byte, error)) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("edit API keys file: %w", err)
		}
	}()
	// What a link leads to is edited, and stays what it is linked as.
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }() // and so unlocks
	if err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", dir.Name(), err)
	}
	text, info, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		text, info = nil, nil
	} else if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	keys, faults := parse(text)
	if len(faults) > 0 {
		return fmt.Errorf("mend it first: %w", &FileError{Path: path, Faults: faults})
	}
	if text, err = change(text, keys); err != nil {
		return err
	}
	if err := replace(path, text, info); err != nil {
		return err
	}
	return dir.Sync() // the new name is on the disk too
}

// replace writes a file beside path and renames it. A new file is its maker's
// alone; an old one keeps its owner and mode, for the daemon may be another user
// than the one who edits.
func replace(path string, text []byte, old os.FileInfo) (err error) {
	file, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.new") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = file.Close() // if it is open still
			err = errors.Join(err, os.Remove(file.Name()))
		}
	}()
	if old != nil {
		owner := ownerOf(old)
		if err := file.Chown(int(owner.Uid), int(owner.Gid)); err != nil {
			return err
		}
		if err := file.Chmod(old.Mode().Perm()); err != nil {
			return err
		}
	}
	if _, err := file.Write(text); err != nil {
		return err
	}
	if err := file.Sync(); err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	return os.Rename(file.Name(), path)
}
