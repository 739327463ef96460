package hook

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"carrel/internal/jail"
	"carrel/internal/tool"
	"carrel/protocol"
)

// maxAnswerBytes bounds what is read of a hook's answer, and of its stderr.
const maxAnswerBytes = 1 << 20

// exitDeny is the status by which a command denies, its stderr being the reason.
const exitDeny = 2

// ask asks the hooks of an event one after the other; each sees the input that the
// one before it left. The answer is all of theirs together: the first that denies
// ends it, one that asks outweighs one that allows. by is the hook whose decision that
// is. An error is a hook's failure, which is to be taken as a no.
func (g *Gate) ask(ctx context.Context, p protocol.HookParams, s *subject) (all protocol.HookResult, by int, err error) {
	p.RunID, p.SessionID = g.o.RunID, g.o.SessionID
	if g.o.Dir != nil {
		p.Cwd = g.o.Dir()
	}
	for _, h := range g.o.Policy.hooks {
		if h.Event != p.Event || h.match != nil && s != nil && h.match.forbids(s) == no {
			continue
		}
		p.Hook = h.number
		r, err := g.one(ctx, h, p)
		if err != nil {
			return all, h.number, fmt.Errorf("hook %d (%s) failed: %w", h.number, h.Event, err)
		}
		if r.Context != "" {
			all.Context = strings.TrimPrefix(all.Context+"\n"+r.Context, "\n")
		}
		if r.Decision == deny || r.Decision == ask || r.Decision == allow && all.Decision == "" {
			all.Decision, all.Reason, by = r.Decision, r.Reason, h.number
		}
		if all.Decision == deny {
			return all, by, nil
		}
		if given(r.Input) {
			p.Input, all.Input = r.Input, r.Input
			if s != nil && p.Event == protocol.HookBeforeTool {
				if s, err = g.subject(ctx, tool.Call{Name: p.Tool, Input: p.Input}); err != nil {
					return all, h.number, err
				}
			}
		}
	}
	return all, by, nil
}

func (g *Gate) one(ctx context.Context, h hook, p protocol.HookParams) (r protocol.HookResult, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, h.timeout, fmt.Errorf("no answer within %s", h.timeout))
	defer cancel()
	switch {
	case h.Command != nil:
		r, err = g.command(ctx, h, p)
	case g.o.Webhook == nil:
		err = errors.New("no host is there to ask a webhook")
	default:
		r, err = g.o.Webhook(ctx, p)
	}
	switch {
	case ctx.Err() != nil:
		return r, context.Cause(ctx)
	case err != nil:
		return r, err
	case !slices.Contains([]string{"", allow, ask, deny}, r.Decision):
		return r, fmt.Errorf("its decision %.20q is none of allow, ask, deny", r.Decision)
	case given(r.Input) && !bytes.HasPrefix(bytes.TrimSpace(r.Input), []byte("{")):
		return r, errors.New("its input is no JSON object")
	}
	return r, nil
}

// command asks a command, in the tool tier: it may be handed hostile text without
// harm. But a tool may change a program that lies in the workspace, so that what
// it says can add to what rules forbid and never take from it.
func (g *Gate) command(ctx context.Context, h hook, p protocol.HookParams) (protocol.HookResult, error) {
	var r protocol.HookResult
	input, err := json.Marshal(p)
	if err != nil {
		return r, err
	}
	out, errOut := tool.NewOutput(2*maxAnswerBytes), tool.NewOutput(8<<10)
	exit, err := g.o.Run(ctx, tool.Command{
		Argv:  h.Command.Argv(),
		Env:   g.o.Env,
		Dir:   jail.WorkspaceDir,
		Stdin: bytes.NewReader(input),
		Output: func(s tool.Stream, text string) error {
			if s == tool.Stdout {
				out.WriteString(text)
			} else {
				errOut.WriteString(text)
			}
			return nil
		},
	})
	answer := strings.TrimSpace(out.String())
	switch {
	case err != nil:
		return r, err
	case exit.Code == exitDeny:
		return protocol.HookResult{Decision: deny, Reason: strings.TrimSpace(errOut.String())}, nil
	case exit.Code != 0:
		return r, fmt.Errorf("exit status %d: %s", exit.Code, strings.TrimSpace(errOut.String()))
	case answer == "":
		return r, nil
	case out.Size() > maxAnswerBytes:
		return r, fmt.Errorf("its answer has %d bytes, at most %d are allowed", out.Size(), maxAnswerBytes)
	}
	if err := json.Unmarshal([]byte(answer), &r); err != nil {
		return r, fmt.Errorf("its answer: %w", err)
	}
	if r.Decision == allow {
		r.Decision = "" // no objection; a yes that outweighs an ask rule must come from where no tool is
	}
	return r, nil
}
