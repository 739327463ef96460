package protocol

import (
	"unicode"
	"unicode/utf8"
)

// Limits of the ids callers choose (CONTRACT: users and sessions).
const (
	MaxUserIDBytes    = 256
	MaxSessionIDBytes = 128
)

// CheckUserID reports why id is no user id: any UTF-8 string of 1 to 256 bytes
// without control characters is one.
func CheckUserID(id string) error {
	switch {
	case id == "":
		return Errorf(CodeInvalidRequest, "user_id: must not be empty")
	case len(id) > MaxUserIDBytes:
		return Errorf(CodeInvalidRequest, "user_id: %d bytes, at most %d are allowed", len(id), MaxUserIDBytes)
	case !utf8.ValidString(id):
		return Errorf(CodeInvalidRequest, "user_id: must be UTF-8")
	}
	for _, r := range id {
		if unicode.IsControl(r) {
			return Errorf(CodeInvalidRequest, "user_id: must not contain control characters (found %U)", r)
		}
	}
	return nil
}

// CheckSessionID reports why id is no session id: 1 to 128 of A-Z a-z 0-9 . _ -.
// The names "." and ".." are refused, since a session id names a file.
func CheckSessionID(id string) error {
	if id == "" || len(id) > MaxSessionIDBytes {
		return Errorf(CodeInvalidRequest, "session_id: must be 1 to %d characters long", MaxSessionIDBytes)
	}
	if id == "." || id == ".." {
		return Errorf(CodeInvalidRequest, "session_id: %q is not allowed", id)
	}
	for i := range len(id) {
		c := id[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '.', c == '_', c == '-':
		default:
			return Errorf(CodeInvalidRequest, "session_id: only A-Z a-z 0-9 . _ - are allowed (found %q)", rune(c))
		}
	}
	return nil
}
