package keyring

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"carrel/protocol"
)

// The roles of a key.
const (
	RoleAdmin = "admin" // acts for everyone
	RoleUser  = "user"  // acts for its user alone
)

// LocalName is the caller's name where there is no sign-in; no key may have it.
const LocalName = "local"

// maxNameBytes bounds a key's name, which stands in every line of the log.
const maxNameBytes = 64

// form is what a line must look like.
const form = "name:role:sha256-hex-of-the-key[:user]"

// Key is one line of the file.
type Key struct {
	Name string
	Role string // RoleAdmin or RoleUser
	User string // whom a RoleUser key acts for; else empty

	hash [sha256.Size]byte // of the key itself
}

// Check reports what is wrong with the names of a key.
func (k Key) Check() error {
	if err := checkName(k.Name); err != nil {
		return err
	}
	switch {
	case k.Role == RoleAdmin && k.User != "":
		return errors.New("user: an admin key acts for everyone; leave the user out, or make it a user key")
	case k.Role == RoleAdmin:
		return nil
	case k.Role != RoleUser:
		return errors.New("role: must be admin or user")
	case k.User == "":
		return errors.New("user: a user key needs the user that it acts for")
	}
	if err := protocol.CheckUserID(k.User); err != nil {
		return errors.New("user: must be 1 to 256 bytes of UTF-8 without control characters")
	}
	return nil
}

// checkName does not repeat the name: it may be a key in the wrong place.
func checkName(name string) error {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"
	switch {
	case name == "" || len(name) > maxNameBytes || strings.Trim(name, letters) != "":
		return fmt.Errorf("name: must be 1 to %d of A-Z a-z 0-9 . _ -", maxNameBytes)
	case name == LocalName:
		return fmt.Errorf("name: %q is who calls where there is no sign-in; choose another", name)
	}
	return nil
}

// line gives a key as it stands in the file.
func (k Key) line() string {
	text := k.Name + ":" + k.Role + ":" + hex.EncodeToString(k.hash[:])
	if k.User != "" {
		text += ":" + k.User
	}
	return text
}

// Fault is one thing wrong with a file of keys.
type Fault struct {
	Line   int // from 1; 0 = the file as a whole
	Reason string
}

func (f Fault) String() string {
	if f.Line == 0 {
		return f.Reason
	}
	return fmt.Sprintf("line %d: %s", f.Line, f.Reason)
}

// FileError is everything wrong with a file of keys.
type FileError struct {
	Path   string
	Faults []Fault
}

func (e *FileError) Error() string {
	texts := make([]string, len(e.Faults))
	for i, f := range e.Faults {
		texts[i] = f.String()
	}
	return "API keys file " + e.Path + ": " + strings.Join(texts, "; ")
}

// parse reads lines of [form]. Blank lines and those that start with # are
// skipped. A user id may hold colons and spaces, so nothing is trimmed but the
// end of a line. A fault repeats nothing of its line: whatever stands there may be
// a key.
func parse(text []byte) ([]Key, []Fault) {
	var keys []Key
	var faults []Fault
	byName := make(map[string]int)
	byHash := make(map[[sha256.Size]byte]int)
	number := 0
	for raw := range bytes.SplitSeq(text, []byte("\n")) {
		number++
		if isComment(raw) {
			continue
		}
		key, err := parseLine(raw)
		if err == nil && byName[key.Name] > 0 {
			err = fmt.Errorf("name: the same as on line %d", byName[key.Name])
		}
		// One key with two names would be one caller or the other by chance.
		if err == nil && byHash[key.hash] > 0 {
			err = fmt.Errorf("key: the same as on line %d", byHash[key.hash])
		}
		if err != nil {
			faults = append(faults, Fault{Line: number, Reason: err.Error()})
			continue
		}
		byName[key.Name], byHash[key.hash] = number, number
		keys = append(keys, key)
	}
	return keys, faults
}

// isComment reports whether a line says nothing of keys.
func isComment(line []byte) bool {
	line = bytes.TrimSpace(line)
	return len(line) == 0 || line[0] == '#'
}

func parseLine(raw []byte) (Key, error) {
	line := string(bytes.TrimSuffix(raw, []byte("\r")))
	fields := strings.SplitN(line, ":", 4)
	if !utf8.ValidString(line) || len(fields) < 3 {
		return Key{}, errors.New("must be " + form)
	}
	key := Key{Name: fields[0], Role: fields[1]}
	if len(fields) == 4 {
		key.User = fields[3]
	}
	hash, err := hex.DecodeString(fields[2])
	if err != nil || len(hash) != sha256.Size {
		return Key{}, errors.New("key: must be its SHA-256 as 64 hex digits, never the key itself")
	}
	key.hash = [sha256.Size]byte(hash)
	if key.Role == RoleAdmin && len(fields) == 4 && key.User == "" {
		return Key{}, errors.New("has a colon too many")
	}
	return key, key.Check()
}

// nameOf is the name that a line gives to its key; empty for a comment.
func nameOf(line []byte) string {
	if isComment(line) {
		return ""
	}
	name, _, _ := strings.Cut(string(line), ":")
	return name
}

// has reports whether one of the keys has a name.
func has(keys []Key, name string) bool {
	return slices.ContainsFunc(keys, func(k Key) bool { return k.Name == name })
}
