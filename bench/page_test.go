package bench

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

const (
	pageFile  = "../docs/performance.md"
	pageBegin = "<!-- results: made by CARREL_UPDATE=1 go test ./bench -run Page -->\n"
	pageEnd   = "<!-- end of results -->"
)

// TestPageTellsTheNewestKeptResults holds the tables of docs/performance.md against the
// newest file of bench/results, or renews them where CARREL_UPDATE is set.
func TestPageTellsTheNewestKeptResults(t *testing.T) {
	kept, err := filepath.Glob("results/*.json")
	if err != nil || len(kept) == 0 {
		t.Fatal("there are no kept results: make bench")
	}
	newest := slices.MaxFunc(kept, strings.Compare) // their names begin with the date
	content, err := os.ReadFile(newest)
	if err != nil {
		t.Fatal(err)
	}
	var r Results
	if err := json.Unmarshal(content, &r); err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(pageFile)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(page), pageBegin)
	_, after, closed := strings.Cut(rest, pageEnd)
	if !ok || !closed {
		t.Fatalf("%s has no place for the results", pageFile)
	}
	want := before + pageBegin + "\n" + r.markdown() + "\n" + pageEnd + after
	switch {
	case want == string(page):
	case os.Getenv("CARREL_UPDATE") == "":
		t.Fatalf("%s does not tell %s: CARREL_UPDATE=1 go test ./bench -run Page", pageFile, newest)
	default:
		if err := os.WriteFile(pageFile, []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// markdown is the results as tables of a page.
func (r *Results) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Commit %s, %s, on %s, %d processors, Linux %s, %s; %s in all.\n", r.Commit, r.Date.Format(time.DateOnly), r.CPU, r.CPUs, r.Kernel, r.Go, r.Duration)
	b.WriteString("\n| target | | is | wanted | |\n|---|---|---|---|---|\n")
	for _, h := range r.Targets {
		word := "held"
		if !h.Held {
			word = "**not held**"
		}
		fmt.Fprintf(&b, "| %s: %s | p%.0f | %s × %s | %s × | %s |\n", h.Case, h.Subject, h.At*100, short(h.Ratio), h.Beside, short(h.Target), word)
	}
	last := ""
	for _, f := range r.Figures {
		if f.Case != last {
			fmt.Fprintf(&b, "\n| %s, %s | n | min | p50 | p95 | p99 | × |\n|---|---|---|---|---|---|---|\n", f.Case, f.Unit)
			last = f.Case
		}
		ratio := ""
		if f.Beside != "" {
			ratio = short(f.Ratio)
		}
		fmt.Fprintf(&b, "| %s | %d | %s | %s | %s | %s | %s |\n", f.Subject, f.N, short(f.Min), short(f.P50), short(f.P95), short(f.P99), ratio)
	}
	for _, why := range r.LeftOut {
		fmt.Fprintf(&b, "\nLeft out: %s.\n", why)
	}
	return b.String()
}
