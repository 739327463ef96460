package hook

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"carrel/internal/tool"
	"carrel/protocol"
)

// FuzzPermissionsFile reads a file of permissions. One that is taken is exact: it is
// one JSON value, no name stands in it twice or in another spelling, so that each
// rule that is written is in force, and what was read says the same when it is
// written down and read again.
func FuzzPermissionsFile(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"allow":["bash(git *)"],"deny":["bash(git push *)"],"default":"ask"}`, `{"deny":["bash"],"deny":["read"]}`,
		`{"deny":["bash"],"Deny":["read"]}`, `{"deny":["bash"]}}`, `{"deny":["bash"]} ]`, `{} {}`, `null`, `[]`, `{"hooks":[null]}`,
		`{"hooks":[{"event":"stop","command":["a"]},{"event":"before_tool","match":"bash","webhook":"http://x","timeout_s":1}]}`,
		`{"hooks":[{"event":"stop","command":"a","webhook":"http://x"}]}`, `{"hooks":[{"event":"stop","command":"a","Event":"prompt"}]}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		p, err := Parse(content)
		if err != nil {
			return
		}
		if !json.Valid(content) {
			t.Fatalf("%q is taken, and is no JSON", content)
		}
		again, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		if second, err := Parse(again); err != nil || !slices.Equal(second.Deny, p.Deny) || !slices.Equal(second.Allow, p.Allow) {
			t.Fatalf("%s, read again: %+v, %v", again, second, err)
		}
		if written, inForce := countRules(t, content), len(p.Allow)+len(p.Ask)+len(p.Deny); written != inForce {
			t.Errorf("%d rules in %q, %d in force", written, content, inForce)
		}
	})
}

// countRules counts the rules that are written in a file, whatever their list's name
// is spelled like and however often it comes.
func countRules(t *testing.T, content []byte) (n int) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(string(content)))
	if first, err := d.Token(); err != nil || first != json.Delim('{') {
		return 0
	}
	for d.More() {
		name, err := d.Token()
		var value json.RawMessage
		if err != nil || d.Decode(&value) != nil {
			t.Fatalf("%q was taken", content)
		}
		var list []json.RawMessage
		if !strings.EqualFold(name.(string), "hooks") && json.Unmarshal(value, &list) == nil {
			n += len(list)
		}
	}
	return n
}

// FuzzHookAnswers has hooks answer anything: a command by its output and status, a
// webhook by its result. A tool is used only if no rule denies what will be done and
// no answer was a no or none at all; a command's yes takes nothing from an ask rule.
func FuzzHookAnswers(f *testing.F) {
	for _, answer := range []string{
		"", "x", "{}", "null", "[]", `{"decision":"allow"}`, `{"decision":"deny","reason":"r"}`, `{"decision":"ALLOW"}`, `{"decision":"ask"}`,
		`{"input":{"command":"forbidden x"}}`, `{"decision":"allow","input":{"command":"forbidden x"}}`, `{"input":[]}`, `{"input":"x"}`,
		`{"input":{"command":"a"},"input":{"command":"forbidden x"}}`, `{"decision":"allow"} {"decision":"deny"}`, `{"context":"c"}`, `{"input":{"Command":"forbidden x","command":"a"}}`,
	} {
		f.Add(answer, "", 0)
		f.Add(answer, "stderr", exitDeny)
		f.Add("{}", answer, 1)
	}
	f.Fuzz(func(t *testing.T, stdout, stderr string, code int) {
		w := &world{approve: says(deny, "", "")}
		w.command = func(_ context.Context, c tool.Command) (tool.Exit, error) {
			err := c.Output(tool.Stdout, stdout)
			if err == nil {
				err = c.Output(tool.Stderr, stderr)
			}
			return tool.Exit{Code: code}, err
		}
		g := w.gate(t, "", protocol.Permissions{
			Allow: []string{"bash(echo *)"}, Ask: []string{"bash(sudo *)"}, Deny: []string{"bash(forbidden *)"},
			Hooks: []protocol.Hook{{Event: protocol.HookBeforeTool, Command: &protocol.Command{Shell: "h"}}},
		})
		for _, command := range []string{"echo x", "sudo x", "forbidden x"} {
			call, denial, _, err := g.Before(t.Context(), tool.Call{Name: "bash", Input: encoded(t, command)})
			if err != nil {
				t.Fatal(err)
			}
			if denial != "" {
				continue
			}
			s, _ := g.subject(t.Context(), call)
			switch v := g.o.Policy.judge(s); {
			case v.decision != allow: // the person said no, and a command's yes does not count
				t.Errorf("%s passes as %s, which is %s, after %q", command, call.Input, v.decision, stdout)
			case code != 0:
				t.Errorf("%s passes after status %d", command, code)
			}
			if r := (protocol.HookResult{}); strings.TrimSpace(stdout) != "" && json.Unmarshal([]byte(stdout), &r) != nil {
				t.Errorf("%s passes after %q, which is no answer", command, stdout)
			} else if r.Decision == deny || r.Decision == ask {
				t.Errorf("%s passes after the decision %s", command, r.Decision)
			}
		}
	})
}

func encoded(t *testing.T, command string) json.RawMessage {
	t.Helper()
	raw, err := json.Marshal(map[string]string{"command": command})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}
