package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// Record is one line of the ledger: the counts of one step of the gate. A step that
// is no test run (format, lint) is one check that passed or failed.
type Record struct {
	Name   string   `json:"name"`
	As     string   `json:"as,omitempty"` // "root" or "user": who ran the tests
	Passed int      `json:"passed"`
	Failed int      `json:"failed"`
	Skips  []Skip   `json:"skips,omitempty"`
	Ran    []string `json:"ran,omitempty"` // the tests that passed, as package.Test
}

// Skip is a test that did not run.
type Skip struct {
	Test   string `json:"test"` // package.Test
	Reason string `json:"reason"`
}

// How the reason of a skip begins that is no lack of the kernel's, by the one who
// has to run the test instead.
const (
	needsRoot = "needs root"             // "root" runs it
	needsUser = "needs an ordinary user" // "user" runs it
)

// printTotal prints the tests nobody ran, then the sum of all records as the last
// line. With requireKernel each such test is a failure.
func printTotal(out io.Writer, records []Record, requireKernel bool) error {
	passed, failed := 0, 0
	for _, r := range records {
		passed += r.Passed
		failed += r.Failed
		if r.Failed > 0 {
			fmt.Fprintf(out, "failed: %s (%d)\n", r.Name, r.Failed)
		}
	}
	for _, s := range unrun(records) {
		word := "skipped"
		if requireKernel {
			word = "skipped, which REQUIRE_KERNEL=1 forbids"
			failed++
		}
		fmt.Fprintf(out, "%s: %s: %s\n", word, s.Test, s.Reason)
	}
	if passed+failed == 0 {
		fmt.Fprintln(out, "failed: nothing was counted")
		failed++
	}
	fmt.Fprintf(out, "%d passed, %d failed\n", passed, failed)
	if failed > 0 {
		return errFailed
	}
	return nil
}

// unrun returns the skips that no other run makes good, each test once. A skip is
// made good where the same test passed in another run: what needs root is skipped
// by the ordinary user and the other way round. Where nobody of the kind that a
// test asks for was there at all (a developer without root), it is excused too.
func unrun(records []Record) []Skip {
	ran, ranAs := map[string]bool{}, map[string]bool{}
	for _, r := range records {
		ranAs[r.As] = true
		for _, test := range r.Ran {
			ran[test] = true
		}
	}
	var left []Skip
	for _, r := range records {
		for _, s := range r.Skips {
			excused := strings.HasPrefix(s.Reason, needsRoot) && !ranAs["root"] ||
				strings.HasPrefix(s.Reason, needsUser) && !ranAs["user"]
			if ran[s.Test] || excused {
				continue
			}
			ran[s.Test] = true
			left = append(left, s)
		}
	}
	slices.SortFunc(left, func(a, b Skip) int { return strings.Compare(a.Test, b.Test) })
	return left
}

func appendLedger(path string, r Record) error {
	text, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("ledger: %w", err)
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("ledger: %w", err)
	}
	_, err = f.Write(append(text, '\n'))
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("ledger: %w", err)
	}
	return nil
}

func readLedger(path string) ([]Record, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("ledger: %w", err)
	}
	var records []Record
	for line := range bytes.Lines(text) {
		var r Record
		if err := json.Unmarshal(line, &r); err != nil {
			return nil, fmt.Errorf("ledger: %s: line %d: %w", path, len(records)+1, err)
		}
		records = append(records, r)
	}
	return records, nil
}
