package broker

import (
	"bytes"
	"slices"
	"strings"
)

// keyGuard keeps the key out of what goes to a sandbox. The API does not say the
// key; a gateway before it that repeats what it was sent, in a page about an error,
// would.
type keyGuard struct {
	key  []byte // empty guards nothing
	held []byte // the end of what came, as far as the key may begin in it
}

// in reports whether the key is in any of the values.
func (g *keyGuard) in(values []string) bool {
	return len(g.key) > 0 && slices.ContainsFunc(values, func(v string) bool { return strings.Contains(v, string(g.key)) })
}

// pass takes the next bytes and returns those that may go on, which is p itself
// unless it ends in a beginning of the key: that waits for the bytes behind it. An
// event ends in an empty line, and so none is ever held up. last tells that none
// will follow. told reports that the key is there.
func (g *keyGuard) pass(p []byte, last bool) (safe []byte, told bool) {
	if len(g.key) == 0 {
		return p, false
	}
	if len(g.held) > 0 {
		p = append(g.held, p...)
		g.held = nil
	}
	if bytes.Contains(p, g.key) {
		return nil, true
	}
	if last {
		return p, false
	}
	for n := min(len(p), len(g.key)-1); n > 0; n-- {
		if bytes.HasPrefix(g.key, p[len(p)-n:]) {
			g.held = bytes.Clone(p[len(p)-n:])
			return p[:len(p)-n], false
		}
	}
	return p, false
}
