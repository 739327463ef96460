package keyring

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"sync/atomic"
)

// ErrRemoved is the cause by which what a key has under way ends when the key is
// taken off the file.
var ErrRemoved = errors.New("the API key was taken away")

// Ring is the keys in force. It is safe for concurrent use.
type Ring struct {
	path string
	// root is what ends every key's context; the caller of New ends it.
	root context.Context //nolint:containedctx // of a long-lived object
	// pepper makes the index of a key unforeseeable; see find.
	pepper [32]byte
	held   atomic.Pointer[map[index]*Held]
}

// index is where a key is looked up.
type index [sha256.Size]byte

// Held is a key in force.
type Held struct {
	Key

	// Context ends, with ErrRemoved as cause, when the key is no longer in force.
	Context context.Context //nolint:containedctx // the key's own life
	revoke  context.CancelCauseFunc
}

// New makes a ring without a key; Reload reads them. ctx's end ends the contexts of
// all keys.
func New(ctx context.Context, path string) *Ring {
	r := &Ring{path: path, root: ctx}
	_, _ = rand.Read(r.pepper[:]) // never fails
	r.held.Store(&map[index]*Held{})
	return r
}

// Len is the number of keys.
func (r *Ring) Len() int { return len(*r.held.Load()) }

// Reload reads the file. With an error, a [*FileError], the keys stay as they were.
// It is called by one goroutine at a time.
func (r *Ring) Reload() error {
	keys, err := Read(r.path)
	if err != nil {
		return err
	}
	before := *r.held.Load()
	now := make(map[index]*Held, len(keys))
	for _, k := range keys {
		at := r.index(k.hash)
		if old := before[at]; old != nil && old.Key == k {
			now[at] = old // what it has under way goes on
			continue
		}
		h := &Held{Key: k}
		h.Context, h.revoke = context.WithCancelCause(r.root)
		now[at] = h
	}
	r.held.Store(&now)
	for at, old := range before {
		if now[at] != old {
			old.revoke(ErrRemoved)
		}
	}
	return nil
}

// Find tells whose a presented key is; nil if nobody's.
//
// Neither the time it takes nor its answer says how near a wrong key is. What is
// compared is never the key but its hash, of which a guesser cannot choose any
// part. And the hash is not looked up as it is, which would compare it byte by
// byte with those that share its place in the table, but under a HMAC whose secret
// is this process's own; so not even who has read the file can foresee what is
// compared with what. The time is the same for one key and for thousands.
func (r *Ring) Find(presented string) *Held {
	hash := sha256.Sum256([]byte(presented))
	h := (*r.held.Load())[r.index(hash)]
	if h == nil || subtle.ConstantTimeCompare(h.hash[:], hash[:]) != 1 {
		return nil
	}
	return h
}

func (r *Ring) index(hash [sha256.Size]byte) index {
	mac := hmac.New(sha256.New, r.pepper[:])
	_, _ = mac.Write(hash[:]) // never fails
	return index(mac.Sum(nil))
}
