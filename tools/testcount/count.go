package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// event is one line of `go test -json` (go doc test2json, go help buildjson).
type event struct {
	Action  string
	Package string
	Test    string  // empty where the event is the package's own
	Elapsed float64 // seconds
	Output  string
}

// pkg is what is known of one package while its tests run.
type pkg struct {
	tests map[string]string // name → "" while it runs, then pass, fail or skip
	lines []line
}

// line is one line of output, and the test that printed it.
type line struct{ test, text string }

// count reads events until the end of in, prints every package as it ends, and
// returns the sum. Counted are leaf tests: a test with subtests is the sum of them,
// and counts itself only where it failed and none of them did. Each of these counts
// as one failure besides: a test that never ended, a package that failed with all
// its tests passing (TestMain, a leaked goroutine) or that did not build, a package
// without a result, and a run without any test. A subtest of a test that passed has
// passed: what says so can be lost among what others write to the same pipe.
func count(in io.Reader, out io.Writer) (Record, error) {
	var sum Record
	open := map[string]*pkg{}
	reader := bufio.NewReader(in)
	for {
		text, err := reader.ReadBytes('\n')
		if len(text) > 0 {
			take(&sum, open, text, out)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return Record{}, fmt.Errorf("read events: %w", err)
		}
	}

	for name, p := range open {
		p.end(&sum, event{Action: "fail", Package: name}, "gave no result", out)
	}
	if sum.Passed+sum.Failed+len(sum.Skips) == 0 {
		fmt.Fprintln(out, "FAIL  no test ran")
		sum.Failed++
	}
	return sum, nil
}

// take adds one line of the stream. A line that is no event is shown as it stands:
// the go command's own complaints come so.
func take(sum *Record, open map[string]*pkg, text []byte, out io.Writer) {
	var e event
	if json.Unmarshal(text, &e) != nil || e.Action == "" {
		fmt.Fprintf(out, "%s\n", strings.TrimRight(string(text), "\n"))
		return
	}
	if e.Action == "build-output" {
		fmt.Fprint(out, e.Output)
		return
	}
	if e.Package == "" {
		return // build-fail: the package's own fail event follows
	}
	p := open[e.Package]
	if p == nil {
		p = &pkg{tests: map[string]string{}}
		open[e.Package] = p
	}
	switch {
	case e.Action == "output":
		p.lines = append(p.lines, line{e.Test, e.Output})
	case e.Test != "":
		p.result(e)
	case e.Action == "pass", e.Action == "fail", e.Action == "skip":
		p.end(sum, e, "", out)
		delete(open, e.Package)
	}
}

// result notes how far a test is. A failure stays one, whatever a second run of the
// same test (-count, -cpu) gives.
func (p *pkg) result(e event) {
	switch e.Action {
	case "pass", "fail", "skip":
		if p.tests[e.Test] != "fail" {
			p.tests[e.Test] = e.Action
		}
	case "run":
		if _, seen := p.tests[e.Test]; !seen {
			p.tests[e.Test] = ""
		}
	}
}

// end counts a package that has ended and prints its line. note, where given, says
// what is wrong with the package itself.
func (p *pkg) end(sum *Record, e event, note string, out io.Writer) {
	for name, result := range p.tests {
		if result == "" && p.passedAbove(name) {
			p.tests[name] = "pass"
		}
	}
	passed, failed, skipped := 0, 0, 0
	for _, name := range slices.Sorted(maps.Keys(p.tests)) {
		switch result := p.tests[name]; {
		case result == "pass":
			if p.isLeaf(name) {
				passed++
			}
			sum.Ran = append(sum.Ran, e.Package+"."+name)
		case result == "skip" && p.isLeaf(name):
			skipped++
			sum.Skips = append(sum.Skips, Skip{Test: e.Package + "." + name, Reason: p.reason(name)})
		case (result == "fail" || result == "") && !p.failsBelow(name):
			failed++
		}
	}
	if e.Action == "fail" && failed == 0 {
		failed++
		if note == "" {
			note = "the package itself failed"
		}
	}
	sum.Passed += passed
	sum.Failed += failed
	p.print(e, note, out)

	word := "ok   "
	switch {
	case failed > 0:
		word = "FAIL "
	case passed+skipped == 0:
		word = "-    "
	}
	fmt.Fprintf(out, "%s %-34s %4d passed, %d failed, %d skipped  %.1fs", word, e.Package, passed, failed, skipped, e.Elapsed)
	if note != "" {
		fmt.Fprintf(out, "  (%s)", note)
	}
	fmt.Fprintln(out)
}

// print shows the output of every test that did not pass, and the package's own
// where the package failed.
func (p *pkg) print(e event, note string, out io.Writer) {
	for name, result := range p.tests {
		if result == "" {
			p.lines = append(p.lines, line{name, "--- did not end: " + name + "\n"})
		}
	}
	for _, l := range p.lines {
		bad := l.test == "" && (e.Action == "fail" || note != "")
		if result, ok := p.tests[l.test]; ok && (result == "fail" || result == "") {
			bad = true
		}
		if bad && !strings.HasPrefix(l.text, "=== ") {
			fmt.Fprint(out, l.text)
		}
	}
}

// isLeaf reports whether name has no subtests.
func (p *pkg) isLeaf(name string) bool {
	for other := range p.tests {
		if strings.HasPrefix(other, name+"/") {
			return false
		}
	}
	return true
}

// failsBelow reports whether a subtest of name failed or never ended.
func (p *pkg) failsBelow(name string) bool {
	for other, result := range p.tests {
		if strings.HasPrefix(other, name+"/") && (result == "fail" || result == "") {
			return true
		}
	}
	return false
}

// passedAbove reports whether the test that name is a subtest of has passed: it
// cannot before each of its subtests has ended, and passed or was skipped.
func (p *pkg) passedAbove(name string) bool {
	for i, c := range name {
		if c == '/' && p.tests[name[:i]] == "pass" {
			return true
		}
	}
	return false
}

// reason returns why a test was skipped: the last thing it logged.
func (p *pkg) reason(name string) string {
	var said []string
	for _, l := range p.lines {
		text := strings.TrimSpace(l.text)
		if l.test != name || text == "" || strings.HasPrefix(text, "=== ") || strings.HasPrefix(text, "--- ") {
			continue
		}
		// "file_test.go:12: reason"
		if file, rest, ok := strings.Cut(text, ": "); ok && strings.Contains(file, ".go:") {
			text, said = rest, nil
		}
		said = append(said, text)
	}
	if len(said) == 0 {
		return "no reason given"
	}
	return strings.Join(said, " ")
}
