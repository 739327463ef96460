package worker

import (
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
)

func TestIDsAreULIDsOfTheirTime(t *testing.T) {
	now := time.UnixMilli(1_764_000_123_456)
	seen := make(map[string]bool)
	for range 1000 {
		text, ok := strings.CutPrefix(newID("apr_", now), "apr_")
		id, err := ulid.ParseStrict(text)
		if !ok || err != nil || id.Timestamp().UnixMilli() != now.UnixMilli() {
			t.Fatalf("%s: %v, of %s", text, err, id.Timestamp())
		}
		if seen[text] {
			t.Fatalf("%s twice", text)
		}
		seen[text] = true
	}
}
