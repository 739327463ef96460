package httpapi

import (
	"slices"
	"strconv"
	"strings"

	"carrel/internal/spelling"
	"carrel/protocol"
)

// maxQuotedBytes bounds what a caller gave and an answer repeats.
const maxQuotedBytes = 64

// unknownName refuses a name and tells the nearest known one.
func unknownName(what, name string, known []string) error {
	hint := ""
	if near := nearest(name, known); near != "" {
		hint = "; did you mean " + strconv.Quote(near) + "?"
	}
	return protocol.Errorf(protocol.CodeInvalidRequest, "unknown %s %s%s", what, quote(name), hint)
}

// quote quotes what a caller gave, cut to a bearable length.
func quote(s string) string {
	if len(s) > maxQuotedBytes {
		return strconv.Quote(strings.ToValidUTF8(s[:maxQuotedBytes], "")) + "…"
	}
	return strconv.Quote(s)
}

// nearest returns the known name with the fewest edits to name, if those are at
// most a third of its length, or one; else "".
func nearest(name string, known []string) string {
	best, fewest := "", max(1, len(name)/3)+1
	if len(name) > maxQuotedBytes {
		return ""
	}
	slices.Sort(known) // the same answer to the same question
	for _, k := range known {
		if d := spelling.Distance(strings.ToLower(name), k); d < fewest {
			best, fewest = k, d
		}
	}
	return best
}
