package hook

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"carrel/internal/exact"
	"carrel/internal/tool"
	"carrel/protocol"
)

const (
	defaultTimeout = 10 * time.Second
	maxTimeout     = 10 * time.Minute
	maxRules       = 500 // of each list
	maxHooks       = 50
	// maxFileBytes bounds the file: a worker gets it in one line.
	maxFileBytes = 256 << 10
)

// Parse reads a file of permissions. Every fault is reported, each on a line.
func Parse(content []byte) (protocol.Permissions, error) {
	var p protocol.Permissions
	if len(content) > maxFileBytes {
		return p, fmt.Errorf("permissions: %d bytes, at most %d are allowed", len(content), maxFileBytes)
	}
	// A list by a wrong name, or one that another of its name takes the place of,
	// would protect nothing.
	if err := exact.Decode(content, &p); err != nil {
		return protocol.Permissions{}, fmt.Errorf("permissions: %w", err)
	}
	if _, err := NewPolicy(p); err != nil {
		return protocol.Permissions{}, err
	}
	return p, nil
}

// Policy is what [protocol.Permissions] say. It never changes.
type Policy struct {
	allow, ask, deny []rule
	fallback         string
	hooks            []hook
}

// hook is one of [protocol.Permissions.Hooks].
type hook struct {
	protocol.Hook

	number  int
	match   *rule // nil = every call
	timeout time.Duration
}

// NewPolicy checks permissions. Every fault is reported, each on a line.
func NewPolicy(p protocol.Permissions) (*Policy, error) {
	policy := &Policy{fallback: p.Default}
	var faults []error
	for _, list := range []struct {
		name string
		from []string
		to   *[]rule
	}{{"allow", p.Allow, &policy.allow}, {"ask", p.Ask, &policy.ask}, {"deny", p.Deny, &policy.deny}} {
		if len(list.from) > maxRules {
			faults = append(faults, fmt.Errorf("permissions: %s: %d rules, at most %d are allowed", list.name, len(list.from), maxRules))
			continue
		}
		for _, text := range list.from {
			r, err := parseRule(text)
			if err != nil {
				faults = append(faults, fmt.Errorf("permissions: %s: %w", list.name, err))
			}
			*list.to = append(*list.to, r)
		}
	}
	if !slices.Contains([]string{"", allow, ask, deny}, p.Default) {
		faults = append(faults, fmt.Errorf("permissions: default: %q is none of allow, ask, deny", p.Default))
	}
	if len(p.Hooks) > maxHooks {
		return nil, errors.Join(append(faults, fmt.Errorf("permissions: %d hooks, at most %d are allowed", len(p.Hooks), maxHooks))...)
	}
	for i, h := range p.Hooks {
		parsed, err := parseHook(i, h)
		if err != nil {
			faults = append(faults, fmt.Errorf("permissions: hooks[%d]: %w", i, err))
		}
		policy.hooks = append(policy.hooks, parsed)
	}
	if len(faults) > 0 {
		return nil, errors.Join(faults...)
	}
	return policy, nil
}

func parseHook(number int, h protocol.Hook) (hook, error) {
	parsed := hook{Hook: h, number: number, timeout: defaultTimeout}
	ofTool := h.Event == protocol.HookBeforeTool || h.Event == protocol.HookAfterTool
	seconds := time.Duration(h.TimeoutSeconds * float64(time.Second))
	switch {
	case !ofTool && h.Event != protocol.HookPrompt && h.Event != protocol.HookStop:
		return hook{}, fmt.Errorf("event: %q is none of before_tool, after_tool, prompt, stop", h.Event)
	case (h.Command == nil) == (h.Webhook == ""):
		return hook{}, errors.New("must have a command or a webhook, one of them")
	case h.TimeoutSeconds < 0 || h.TimeoutSeconds > maxTimeout.Seconds():
		return hook{}, fmt.Errorf("timeout_s: must be 0 to %.0f", maxTimeout.Seconds())
	case h.Match != "" && !ofTool:
		return hook{}, errors.New("match: only a hook before or after a tool has one")
	case seconds > 0:
		parsed.timeout = seconds
	}
	if h.Match != "" {
		r, err := parseRule(h.Match)
		if err != nil {
			return hook{}, fmt.Errorf("match: %w", err)
		}
		parsed.match = &r
	}
	return parsed, nil
}

// The decisions, as they are written in files and answers.
const (
	allow = protocol.Allow
	ask   = "ask"
	deny  = protocol.Deny
)

// verdict is what rules say of a call, and why.
type verdict struct {
	decision string
	reason   string
	rule     string // its text; "" = none is about the call
}

func (v verdict) by() protocol.DecidedBy {
	if v.rule == "" {
		return protocol.ByDefault
	}
	return protocol.ByRule
}

// judge holds the rules against a call: see doc.go for their order.
func (p *Policy) judge(s *subject) verdict {
	unsure := ""
	for _, r := range p.deny {
		switch r.forbids(s) {
		case yes:
			return verdict{deny, fmt.Sprintf("the permission rule %q denies it", r.text), r.text}
		case maybe:
			unsure = r.text
		case no:
		}
	}
	for _, r := range p.ask {
		switch r.forbids(s) {
		case yes:
			return verdict{ask, fmt.Sprintf("the permission rule %q asks for a person's yes", r.text), r.text}
		case maybe:
			unsure = r.text
		case no:
		}
	}
	if unsure != "" {
		return verdict{ask, fmt.Sprintf("it cannot be told whether the permission rule %q is about it: %s", unsure, s.doubt()), unsure}
	}
	if by, ok := allowed(p.allow, s); ok {
		return verdict{allow, fmt.Sprintf("the permission rule %q allows it", by), by}
	}
	named := slices.ContainsFunc(p.allow, func(r rule) bool { return r.pattern != "" && covers(r.tool, s.tool) })
	switch {
	case p.fallback == deny:
		return verdict{decision: deny, reason: "no permission rule allows it"}
	case p.fallback == ask, p.fallback == "" && named:
		return verdict{decision: ask, reason: "no permission rule allows it" + s.rest()}
	}
	return verdict{decision: allow, reason: "no permission rule is about it"}
}

// doubt says what makes a subject hard to judge.
func (s *subject) doubt() string {
	switch {
	case s.unreadable:
		return "its input cannot be read"
	case s.script != nil && s.script.opaque != "":
		return s.script.opaque
	}
	return "a part of it is known only when it runs"
}

// rest says what no allow rule can mean.
func (s *subject) rest() string {
	if s.script != nil && s.script.opaque+s.script.more != "" {
		return ": " + strings.Join(slices.DeleteFunc([]string{s.script.opaque, s.script.more}, func(t string) bool { return t == "" }), "; ")
	}
	return ""
}

// asksPaths reports whether a pattern of paths could be about a tool, so that it
// matters where links lead.
func (p *Policy) asksPaths(name string) bool {
	isAbout := func(r rule) bool { return r.pattern != "" && covers(r.tool, name) }
	return slices.ContainsFunc(slices.Concat(p.allow, p.ask, p.deny), isAbout) ||
		slices.ContainsFunc(p.hooks, func(h hook) bool { return h.match != nil && isAbout(*h.match) })
}

// subjectOf reads a call as rules see it. paths is what a file tool's path leads to.
func subjectOf(c tool.Call, paths []string) *subject {
	s := &subject{tool: c.Name, paths: paths}
	if command, ok := c.Command(); ok {
		s.script = parseScript(command)
	}
	s.unreadable = s.script == nil && len(paths) == 0
	return s
}
