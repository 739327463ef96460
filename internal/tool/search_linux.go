package tool

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"regexp"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
)

const (
	defaultNames   = 500
	defaultMatches = 200
	maxContext     = 20
	// maxPatternBytes bounds an expression; RE2 bounds what it costs to run one.
	maxPatternBytes = 4 << 10
	maxGlobBytes    = 1 << 10
	// maxSearchLine is how far into a line a match is looked for, maxShownLine what
	// is shown of it.
	maxSearchLine = 256 << 10
	maxShownLine  = 500
)

// glob finds names.
func (o *fileOp) glob() Result {
	if len(o.Input.Pattern) > maxGlobBytes || !doublestar.ValidatePattern(o.Input.Pattern) {
		return failf("pattern: %.100q is no pattern of file names", o.Input.Pattern)
	}
	root := resolve(searchRoot(o.path, o.Input.Pattern))
	_, pattern := doublestar.SplitPattern(o.Input.Pattern)
	text, found, most := NewOutput(2*o.Bytes), 0, o.Input.Limit
	if most <= 0 {
		most = defaultNames
	}
	w := o.walker(strings.Contains(o.Input.Pattern, ".git"))
	w.visit = func(rel string, _ fs.DirEntry) error {
		if ok, _ := doublestar.Match(pattern, rel); !ok {
			return nil
		}
		if found++; found <= most && text.Size() < int64(o.Bytes) {
			text.WriteString(path.Join(root, rel) + "\n")
		}
		return nil
	}
	if err := w.walk(root); err != nil {
		return o.explain(err, root)
	}
	notes := w.notes()
	switch shown := strings.Count(text.String(), "\n"); {
	case found == 0:
		notes = append([]string{"no file below " + root + " matches " + pattern}, notes...)
	case shown < found:
		notes = append([]string{fmt.Sprintf("%d of %d names given", shown, found)}, notes...)
	}
	r := o.result(text, notes...)
	r.Truncated = len(notes) > 0 && found > 0
	return r
}

func (o *fileOp) walker(gitToo bool) *walker {
	w := &walker{late: o.late}
	if !gitToo {
		w.skipDir = func(rel string) bool { return path.Base(rel) == ".git" }
	}
	return w
}

// grep finds lines.
type grep struct {
	o       *fileOp
	pattern *regexp.Regexp
	text    *Output
	most    int // matches
	found   int
	skipped int // files that could not be read
}

func (o *fileOp) grep() Result {
	g, problem := o.newGrep()
	if problem != "" {
		return failf("%s", problem)
	}
	info, err := os.Stat(o.path)
	if err != nil {
		return o.explain(err, o.path)
	}
	o.path = resolve(o.path) // the walk itself follows no link
	w := o.walker(false)
	if !info.IsDir() {
		if err := g.file(o.path); err != nil && !errors.Is(err, errEnough) {
			return o.explain(err, o.path)
		}
	} else {
		w.visit = func(rel string, e fs.DirEntry) error {
			if !e.Type().IsRegular() || !matchesGlob(o.Input.Glob, rel) {
				return nil
			}
			err := g.file(path.Join(o.path, rel))
			if err != nil && !errors.Is(err, errEnough) && !errors.Is(err, errLate) {
				g.skipped++
				return nil
			}
			return err
		}
		if err := w.walk(o.path); errors.Is(err, errLate) {
			w.stopped = errLate.Error()
		} else if err != nil {
			return o.explain(err, o.path)
		}
	}
	return g.result(w.notes())
}

// newGrep checks the input; problem is empty if it is good.
func (o *fileOp) newGrep() (g *grep, problem string) {
	in := &o.Input
	if len(in.Pattern) > maxPatternBytes {
		return nil, fmt.Sprintf("pattern: %d bytes, at most %d are allowed", len(in.Pattern), maxPatternBytes)
	}
	if len(in.Glob) > maxGlobBytes || !doublestar.ValidatePattern(in.Glob) {
		return nil, fmt.Sprintf("glob: %.100q is no pattern of file names", in.Glob)
	}
	expression := in.Pattern
	if in.IgnoreCase {
		expression = "(?i)" + expression
	}
	pattern, err := regexp.Compile(expression)
	if err != nil {
		return nil, fmt.Sprintf("pattern: %s (the syntax is RE2's: no look-around, no back references)", err)
	}
	in.Context = min(max(in.Context, 0), maxContext)
	g = &grep{o: o, pattern: pattern, text: NewOutput(2 * o.Bytes), most: in.Limit}
	if g.most <= 0 {
		g.most = defaultMatches
	}
	return g, ""
}

// matchesGlob matches a file's path, or its name where the pattern has no slash.
func matchesGlob(pattern, rel string) bool {
	if pattern == "" {
		return true
	}
	if !strings.Contains(pattern, "/") {
		rel = path.Base(rel)
	}
	ok, _ := doublestar.Match(pattern, rel)
	return ok
}

func (g *grep) result(notes []string) Result {
	full := g.found >= g.most || g.text.Size() >= int64(g.o.Bytes)
	switch {
	case g.found == 0:
		notes = append([]string{"no match"}, notes...)
	case full:
		notes = append([]string{fmt.Sprintf("stopped after %d matches; there may be more: narrow the pattern or the path", g.found)}, notes...)
	}
	if g.skipped > 0 {
		notes = append(notes, fmt.Sprintf("%d files could not be read", g.skipped))
	}
	r := g.o.result(g.text, notes...)
	r.Truncated = full && g.found > 0
	return r
}

// file looks through one file. errEnough: there is no room for more.
func (g *grep) file(name string) error {
	f, _, err := openRegular(name)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	l := newLines(g.o.inTime(f), maxSearchLine)
	if isBinary(l.from) {
		return nil
	}
	var (
		before []string // the last lines that were not shown, Context at most
		after  int      // lines still to show after a match
		shown  int      // number of the last line shown
		first  = true
	)
	for number := 1; ; number++ {
		err := l.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		at := g.pattern.FindIndex(l.line)
		switch {
		case at != nil && g.o.Input.FilesOnly:
			g.text.WriteString(name + "\n")
			return g.counted()
		case at != nil:
			if g.o.Input.Context > 0 && !first && number-len(before) > shown+1 {
				g.text.WriteString("--\n")
			}
			for i, text := range before {
				g.show(name, number-len(before)+i, '-', text)
			}
			g.show(name, number, ':', window(l.line, at[0]))
			before, after, shown, first = nil, g.o.Input.Context, number, false
			if err := g.counted(); err != nil {
				return err
			}
		case after > 0:
			g.show(name, number, '-', window(l.line, 0))
			after, shown = after-1, number
		case g.o.Input.Context > 0:
			if len(before) == g.o.Input.Context {
				before = before[1:]
			}
			before = append(before, window(l.line, 0))
		}
	}
}

// counted counts a match.
func (g *grep) counted() error {
	if g.found++; g.found >= g.most || g.text.Size() >= int64(g.o.Bytes) {
		return errEnough
	}
	return nil
}

func (g *grep) show(name string, number int, mark rune, text string) {
	g.text.WriteString(fmt.Sprintf("%s%c%d%c%s\n", name, mark, number, mark, text))
}

// window is what is shown of a line: around a match, if it is far in.
func window(line []byte, match int) string {
	lead := ""
	if match > maxShownLine-100 {
		line, lead = line[match-100:], "…"
	}
	cut := shorten(line, maxShownLine)
	if len(cut) < len(line) {
		return lead + string(cut) + "…"
	}
	return lead + string(cut)
}
