package workspace

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// maxSlugBytes bounds the readable part of a name.
const maxSlugBytes = 24

// DirName returns the name of a user's directory, <slug>-<hash>: a safe single
// path element of at most 57 bytes, a-z 0-9 and - only.
//
// The slug is there for people. What keeps two users apart is the hash, the
// first 128 bits of the id's SHA-256 in lower-case hex, so that "a/b" and "a_b",
// or "A" and "a" on a file system that folds case, never share a directory.
func DirName(userID string) string {
	sum := sha256.Sum256([]byte(userID))
	return slug(userID) + "-" + hex.EncodeToString(sum[:16])
}

// slug keeps the letters and digits of id, in lower case; a run of anything
// else becomes one "-". It is "user" if nothing is left.
func slug(id string) string {
	var b strings.Builder
	gap := false
	for i := range len(id) {
		c := id[i]
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			gap = b.Len() > 0
			continue
		}
		if gap && b.Len() < maxSlugBytes-1 {
			b.WriteByte('-')
		}
		gap = false
		if b.Len() == maxSlugBytes {
			break
		}
		b.WriteByte(c)
	}
	if b.Len() == 0 {
		return "user"
	}
	return b.String()
}
