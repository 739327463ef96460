package hook

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/bmatcuk/doublestar/v4"

	"carrel/internal/jail"
	"carrel/internal/tool"
)

// maxRuleBytes bounds a rule, and so what matching a long command costs.
const maxRuleBytes = 512

var ruleForm = regexp.MustCompile(`^([A-Za-z0-9_*.-]+)(?:\((.*)\))?$`)

// rule is one line of a list.
type rule struct {
	text    string
	tool    string // of names, * in it stands for anything
	pattern string // "" = every call
}

func parseRule(text string) (rule, error) {
	if len(text) > maxRuleBytes || strings.ContainsAny(text, "\x00\n") {
		return rule{}, fmt.Errorf("rule %.60q: at most %d bytes, in one line", text, maxRuleBytes)
	}
	parts := ruleForm.FindStringSubmatch(text)
	if parts == nil {
		return rule{}, fmt.Errorf("rule %q: must be a tool's name, or NAME(PATTERN)", text)
	}
	r := rule{text: text, tool: parts[1], pattern: parts[2]}
	if strings.HasSuffix(text, ")") && r.pattern == "" {
		return rule{}, fmt.Errorf("rule %q: the pattern is empty; for every call write %s", text, r.tool)
	}
	if err := r.checkTool(); err != nil {
		return rule{}, err
	}
	if r.pattern == "*" || r.pattern == "**" {
		r.pattern = ""
	}
	if r.pattern == "" || r.tool == "bash" {
		return r, nil
	}
	if !path.IsAbs(r.pattern) {
		r.pattern = path.Join(jail.WorkspaceDir, r.pattern)
	}
	if !doublestar.ValidatePattern(r.pattern) {
		return rule{}, fmt.Errorf("rule %q: is no pattern of paths", text)
	}
	return r, nil
}

// checkTool refuses a rule for a tool that there is not: a deny that nothing ever
// matches would protect nothing, and nobody would see it.
func (r *rule) checkTool() error {
	others := strings.HasPrefix(r.tool, "mcp__") || strings.Contains(r.tool, "*") && touches(r.tool, "mcp__"+string(unknown))
	known := slices.ContainsFunc(tool.Names(), func(name string) bool { return covers(r.tool, name) })
	switch {
	case !known && !others:
		return fmt.Errorf("rule %q: there is no tool %q; there are %s, and mcp__ names", r.text, r.tool, strings.Join(tool.Names(), ", "))
	case r.pattern != "" && !slices.Contains(tool.Names(), r.tool):
		return fmt.Errorf("rule %q: a pattern needs one of %s in front", r.text, strings.Join(tool.Names(), ", "))
	}
	return nil
}

// subject is a call of a tool as rules see it.
type subject struct {
	tool   string
	script *script  // of bash
	paths  []string // of a file tool: as written, and as links lead it
	// unreadable: the input says neither, so no pattern can be held against it.
	unreadable bool
}

// answer is what a rule says to a subject.
type answer int

const (
	no answer = iota
	maybe
	yes
)

// forbids tells whether a deny or ask rule matches: any part of a command, any
// reading of a path.
func (r *rule) forbids(s *subject) answer {
	if !covers(r.tool, s.tool) {
		return no
	}
	if r.pattern == "" {
		return yes
	}
	if s.unreadable {
		return maybe
	}
	if s.script == nil {
		if slices.ContainsFunc(s.paths, r.hasPath) {
			return yes
		}
		return no
	}
	result := no
	if s.script.opaque != "" {
		result = maybe
	}
	for _, text := range s.script.readings {
		switch {
		case coversCommand(r.pattern, text):
			return yes
		case touchesCommand(r.pattern, text):
			result = maybe
		}
	}
	return result
}

// hasPath matches a directory's pattern with what is below it left open, too.
func (r *rule) hasPath(p string) bool {
	ok, _ := doublestar.Match(r.pattern, p)
	return ok
}

// allowed reports whether allow rules together let a subject pass: each part of a
// command by one of them, each reading of a path by one.
func allowed(rules []rule, s *subject) (by string, ok bool) {
	var with []rule
	for _, r := range rules {
		switch {
		case !covers(r.tool, s.tool):
		case r.pattern == "":
			return r.text, true
		default:
			with = append(with, r)
		}
	}
	if s.unreadable || len(with) == 0 {
		return "", false
	}
	parts, matches := s.paths, (*rule).hasPath
	if s.script != nil {
		if s.script.opaque != "" || s.script.more != "" {
			return "", false
		}
		parts, matches = s.script.commands, func(r *rule, text string) bool { return coversCommand(r.pattern, text) }
	}
	for _, part := range parts {
		i := slices.IndexFunc(with, func(r rule) bool { return matches(&r, part) })
		if i < 0 {
			return "", false
		}
		by = with[i].text
	}
	return by, len(parts) > 0
}

// coversCommand takes " *" at a pattern's end for nothing as well: "git *" is
// about git, whatever follows.
func coversCommand(pattern, text string) bool {
	bare, some := strings.CutSuffix(pattern, " *")
	return covers(pattern, text) || some && covers(bare, text)
}

func touchesCommand(pattern, text string) bool {
	if !strings.ContainsRune(text, unknown) {
		return false // then covers has said it
	}
	bare, some := strings.CutSuffix(pattern, " *")
	return touches(pattern, text) || some && touches(bare, text)
}
