package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// maxCell bounds a word in a table, so that no user can push the rest out of sight.
const maxCell = 64

// cell makes of a text that others chose a word of a table: what could pass for more
// than one is quoted, what a terminal obeys is shown, nothing is "-".
func cell(text string) string {
	if text == "" {
		return "-"
	}
	if text == "-" || strings.ContainsFunc(text, func(r rune) bool { return unicode.IsSpace(r) || r == '"' || r == '\\' }) {
		text = strconv.Quote(text)
	}
	if text = oneLine(text); len(text) > maxCell {
		text = cut(text, maxCell) + "…"
	}
	return text
}

// span shows a length of time in at most two units. Two clocks may disagree: it is
// never negative.
func span(d time.Duration) string {
	const day = 24 * time.Hour
	switch d = max(d, 0); {
	case d < 10*time.Second:
		return fmt.Sprintf("%.1fs", d.Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", d/time.Minute, d%time.Minute/time.Second)
	case d < day:
		return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
	default:
		return fmt.Sprintf("%dd%02dh", d/day, d%day/time.Hour)
	}
}

func mebibytes(n int64) string { return fmt.Sprintf("%.1fMiB", float64(n)/(1<<20)) }
