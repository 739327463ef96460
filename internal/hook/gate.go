package hook

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"carrel/internal/tool"
	"carrel/protocol"
)

// The modes of a run, RunConfig.PermissionMode.
const (
	modeDefault     = "default"
	modeAcceptEdits = "accept_edits"
	modePlan        = "plan"
	modeBypass      = "bypass"
)

// GateOptions say for which run a gate is. The functions are called by several
// goroutines.
type GateOptions struct {
	Policy           *Policy // nil = no rule and no hook
	Mode             string  // "" = default
	RunID, SessionID string
	Env              []string // of hooks that are commands
	// Run runs a command in the tool tier: Hosts.Run.
	Run func(ctx context.Context, c tool.Command) (tool.Exit, error)
	// Dir is the working directory, Resolve where a path leads: the tools' own.
	Dir     func() string
	Resolve func(ctx context.Context, path string) (string, error)
	// Approve asks a person through the host, Webhook has the host ask a webhook;
	// nil = nobody is there, which is a no.
	Approve func(ctx context.Context, p protocol.ApproveParams) (protocol.ApproveResult, error)
	Webhook func(ctx context.Context, p protocol.HookParams) (protocol.HookResult, error)
	// Decided is told what was decided of each call; nil = nobody wants to know.
	Decided func(ctx context.Context, p protocol.DecidedParams)
}

// Gate stands between an agent and its tools for one run. It is safe for
// concurrent use.
type Gate struct{ o GateOptions }

// NewGate makes a run's gate; CodeInvalidRequest for a mode that there is not.
func NewGate(o GateOptions) (*Gate, error) {
	if o.Mode == "" {
		o.Mode = modeDefault
	}
	if modes := []string{modeDefault, modeAcceptEdits, modePlan, modeBypass}; !slices.Contains(modes, o.Mode) {
		return nil, protocol.Errorf(protocol.CodeInvalidRequest, "config.permission_mode: %q is none of %s", o.Mode, strings.Join(modes, ", "))
	}
	if o.Policy == nil {
		o.Policy = &Policy{}
	}
	return &Gate{o: o}, nil
}

// Before decides on a call. It returns the call to make, whose input a hook or a
// person may have changed. A denial is a text for the model; the call must then
// not be made. note is for the model to read beside the result. The error is
// ctx's cause, once it has ended.
func (g *Gate) Before(ctx context.Context, c tool.Call) (call tool.Call, denial, note string, err error) {
	r := g.before(ctx, c)
	if ctx.Err() != nil {
		return c, "", "", context.Cause(ctx)
	}
	g.tell(ctx, r)
	return r.call, r.denial, r.note, nil
}

// tell tells the host who has decided what.
func (g *Gate) tell(ctx context.Context, r ruling) {
	if g.o.Decided == nil {
		return
	}
	p := protocol.DecidedParams{
		RunID: g.o.RunID, CallID: cut(r.call.ID, protocol.MaxDenialBytes), Tool: cut(r.call.Name, protocol.MaxDenialBytes),
		Decision: allow, By: r.by, Rule: cut(r.rule, protocol.MaxDenialBytes),
		Input: cut(string(r.call.Input), protocol.MaxDecidedInputBytes),
	}
	if r.denial != "" {
		p.Decision = deny
	}
	g.o.Decided(ctx, p)
}

// cut is the beginning of a text, n bytes at most.
func cut(text string, n int) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	if len(text) > n {
		text = strings.ToValidUTF8(text[:n], "")
	}
	return text
}

// ruling is what has been decided of a call.
type ruling struct {
	call   tool.Call
	denial string // "" = it may be done
	note   string
	by     protocol.DecidedBy
	rule   string // the rule's text, the hook's number or the mode's name
}

func (g *Gate) before(ctx context.Context, c tool.Call) (r ruling) {
	no := func(by protocol.DecidedBy, rule, denial string) ruling {
		return ruling{c, denial, r.note, by, rule}
	}
	if g.o.Mode == modePlan && !slices.Contains([]string{"read", "glob", "grep"}, c.Name) {
		return no(protocol.ByMode, g.o.Mode, "denied: in plan mode only read, glob and grep may be used")
	}
	s, err := g.subject(ctx, c)
	if err != nil {
		return no(protocol.ByDoubt, "", "denied: "+err.Error())
	}
	if v := g.o.Policy.judge(s); v.decision == deny { // no hook need be asked
		return no(v.by(), v.rule, "denied: "+v.reason)
	}
	answer, number, err := g.ask(ctx, protocol.HookParams{Event: protocol.HookBeforeTool, Tool: c.Name, Input: c.Input}, s)
	hook := strconv.Itoa(number)
	if err != nil {
		return no(protocol.ByHook, hook, "denied: "+err.Error())
	}
	r.note = answer.Context
	if answer.Decision == deny {
		return no(protocol.ByHook, hook, "denied by a hook: "+answer.Reason)
	}
	if answer.Input != nil { // the rules hold for what will be done, not for what was asked
		c.Input = answer.Input
		if s, err = g.subject(ctx, c); err != nil {
			return no(protocol.ByDoubt, "", "denied: "+err.Error())
		}
	}
	v := g.o.Policy.judge(s)
	if answer.Decision == ask && v.decision == allow {
		v = verdict{decision: ask, reason: "a hook asks for a person's yes: " + answer.Reason}
	}
	yes := func(by protocol.DecidedBy, rule string) ruling { return ruling{c, "", r.note, by, rule} }
	switch {
	case v.decision == deny:
		return no(v.by(), v.rule, "denied: "+v.reason)
	case v.decision == allow:
		return yes(v.by(), v.rule)
	case answer.Decision == allow:
		return yes(protocol.ByHook, hook)
	case g.o.Mode == modeBypass, g.o.Mode == modeAcceptEdits && (c.Name == "write" || c.Name == "edit"):
		return yes(protocol.ByMode, g.o.Mode)
	}
	asked := g.approve(ctx, c, v)
	asked.note = r.note
	return asked
}

// approve asks a person. What the person writes instead of the input is held
// against the deny rules: they are the operator's.
func (g *Gate) approve(ctx context.Context, c tool.Call, v verdict) ruling {
	no := func(by protocol.DecidedBy, rule, denial string) ruling {
		return ruling{call: c, denial: denial, by: by, rule: rule}
	}
	if g.o.Approve == nil {
		return no(protocol.ByDoubt, v.rule, "denied: "+v.reason+"; nobody is there to ask")
	}
	answer, err := g.o.Approve(ctx, protocol.ApproveParams{
		RunID: g.o.RunID, ToolCallID: c.ID, Tool: c.Name, Input: c.Input, Reason: v.reason,
	})
	switch {
	case err != nil:
		return no(protocol.ByDoubt, v.rule, fmt.Sprintf("denied: %s; nobody could be asked: %s", v.reason, err))
	case answer.Decision != allow:
		return no(protocol.ByPerson, v.rule, strings.TrimSuffix("denied by a person: "+answer.Reason, ": "))
	case !given(answer.Input):
		return ruling{call: c, by: protocol.ByPerson, rule: v.rule}
	}
	c.Input = answer.Input
	s, err := g.subject(ctx, c)
	if err != nil {
		return no(protocol.ByDoubt, "", "denied: "+err.Error())
	}
	if v := g.o.Policy.judge(s); v.decision == deny {
		return no(v.by(), v.rule, "denied: "+v.reason)
	}
	return ruling{call: c, by: protocol.ByPerson, rule: v.rule}
}

// given reports whether an input was given in an answer: null is none.
func given(input json.RawMessage) bool { return len(input) > 0 && string(input) != "null" }

// subject reads a call, asking the tools where its path leads if it matters.
func (g *Gate) subject(ctx context.Context, c tool.Call) (*subject, error) {
	dir := ""
	if g.o.Dir != nil {
		dir = g.o.Dir()
	}
	p, ok := c.Path(dir)
	if !ok {
		return subjectOf(c, nil), nil
	}
	paths := []string{p}
	if g.o.Policy.asksPaths(c.Name) && g.o.Resolve != nil {
		real, err := g.o.Resolve(ctx, p)
		if err != nil {
			return nil, fmt.Errorf("it cannot be told where %q leads: %w", p, err)
		}
		paths = append(paths, real)
	}
	return subjectOf(c, paths), nil
}

// After lets hooks see a result, and returns what the model may read of it.
func (g *Gate) After(ctx context.Context, c tool.Call, r tool.Result) tool.Result {
	if !g.has(protocol.HookAfterTool) {
		return r
	}
	s, err := g.subject(ctx, c)
	var answer protocol.HookResult
	if err == nil {
		answer, _, err = g.ask(ctx, protocol.HookParams{
			Event: protocol.HookAfterTool, Tool: c.Name, Input: c.Input,
			Result: &protocol.HookToolResult{Content: r.Content, IsError: r.IsError},
		}, s)
	}
	if err != nil {
		answer = protocol.HookResult{Decision: deny, Reason: err.Error()}
	}
	if answer.Decision == deny {
		text := "the tool was used, but a hook withholds its result: " + answer.Reason
		return tool.Result{Content: text, IsError: true, Bytes: int64(len(text))}
	}
	if answer.Context != "" {
		r.Content = strings.TrimSuffix(r.Content, "\n") + "\n\n" + answer.Context
	}
	return r
}

// Prompt lets hooks see a message before the model does: they may add to it,
// replace it or refuse it.
func (g *Gate) Prompt(ctx context.Context, text string) (prompt, denial string, err error) {
	if !g.has(protocol.HookPrompt) {
		return text, "", nil
	}
	type message struct {
		Prompt string `json:"prompt"`
	}
	input, err := json.Marshal(message{text})
	if err != nil {
		return "", "", fmt.Errorf("encode prompt: %w", err)
	}
	answer, _, err := g.ask(ctx, protocol.HookParams{Event: protocol.HookPrompt, Input: input}, nil)
	var changed message
	switch {
	case ctx.Err() != nil:
		return "", "", context.Cause(ctx)
	case err != nil:
		return text, err.Error(), nil
	case answer.Decision == deny:
		return text, "denied by a hook: " + answer.Reason, nil
	case answer.Input == nil:
	case json.Unmarshal(answer.Input, &changed) != nil || changed.Prompt == "":
		return text, "a hook's answer has no prompt in its input", nil
	default:
		text = changed.Prompt
	}
	if answer.Context != "" {
		text += "\n\n" + answer.Context
	}
	return text, "", nil
}

// Stop tells hooks that the run comes to its end; nothing they say changes it. The
// error is for the log.
func (g *Gate) Stop(ctx context.Context) error {
	_, _, err := g.ask(ctx, protocol.HookParams{Event: protocol.HookStop}, nil)
	return err
}

func (g *Gate) has(event protocol.HookEvent) bool {
	return slices.ContainsFunc(g.o.Policy.hooks, func(h hook) bool { return h.Event == event })
}
