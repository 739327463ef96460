package worker

import (
	"crypto/rand"
	"encoding/binary"
	"time"
)

// newID makes a prefixed ULID (github.com/ulid/spec): 48 bits of milliseconds and 80
// random ones, in Crockford's base 32. The library that the host half uses would link
// database/sql into the jailed one.
func newID(prefix string, now time.Time) string {
	const alphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
	var b [16]byte
	_, _ = rand.Read(b[6:]) // never fails (crypto/rand)
	high := uint64(now.UnixMilli())<<16 | uint64(binary.BigEndian.Uint16(b[6:]))
	low := binary.BigEndian.Uint64(b[8:])
	var text [26]byte
	for i := len(text) - 1; i >= 0; i-- {
		text[i] = alphabet[low&31]
		low = low>>5 | high<<59
		high >>= 5
	}
	return prefix + string(text[:])
}
