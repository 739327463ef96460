package hook

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"carrel/internal/tool"
	"carrel/protocol"
)

func policy(t *testing.T, p protocol.Permissions) *Policy {
	t.Helper()
	made, err := NewPolicy(p)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func bash(command string) *subject {
	return &subject{tool: "bash", script: parseScript(command)}
}

// TestAllowIsNotSlippedPast: with git allowed, nothing but git passes without a
// person's yes.
func TestAllowIsNotSlippedPast(t *testing.T) {
	p := policy(t, protocol.Permissions{Allow: []string{"bash(git *)", "bash(echo *)", "bash(npm test)"}})
	for _, command := range []string{
		"git status", "git", "git log | git diff", "git add . && git commit -m 'a; rm -rf /'", "git log >/dev/null 2>&1",
		"git log & git status", "echo \"it's; rm\"; git x", "npm test", "git \\\n status", "g'i't status", "(git x; { git y; })",
		"if git a; then git b; else git c; fi", "for i in 1 2; do git show $i; done", "git log -- *.go", "! git x", "git show <file",
		"git commit -F - <<'END'\nrm -rf /\nEND", "# a word\ngit status # and one", "git log $X", "time git x", "git a || echo b",
	} {
		if v := p.judge(bash(command)); v.decision != allow {
			t.Errorf("%q: %s (%s)", command, v.decision, v.reason)
		}
	}
	for _, command := range []string{
		"rm -rf /", "git status; rm -rf /", "git status && rm -rf /", "git status || rm -rf /", "git status | sh", "git status & rm x",
		"git status\nrm -rf /", "git $(rm -rf /)", "git `rm -rf /`", "git \"$(rm -rf /)\"", "git <(rm -rf /)", "git >(sh)",
		"git log > ~/.bashrc", "git log >> x", "git log >| x", "git log &> x", "git log 2> x", "git x 3<>y", "git x >&y", "git x {fd}>y",
		"GIT_SSH_COMMAND='rm -rf /' git fetch", "PATH=/tmp git x", "PATH=/tmp", "PATH=/tmp; git x", "export PATH=/tmp", "export PATH=/tmp; git x",
		"git() { rm -rf /; }; git x", "function git { rm; }; git", "alias git=rm; git x", "./git x", "/tmp/git x", "~/git x", "$X git x", "$GIT status",
		"gitx", "git-evil x", "git\tx; rm", "eval git x", "eval 'rm -rf /'", "sh -c 'git x'", "command git x", "env git x", "xargs git",
		"git x; }", "git 'open", "git x <<END\n$(rm -rf /)\nEND", "git ${x:-$(rm)}", "git ${x@P}", "git ${a[$(rm)]}", "git $((a[$(rm)]))", "((x=1)); git y",
		"[[ -v a[$(rm)] ]]; git", "coproc git x", "trap 'rm' EXIT; git x", "git x &\nrm", "while git x; do rm; done", "case x in x) rm;; esac",
		"until git x; do git y; rm z; done", "{git,rm} x", "g* x", "npm test; npm run evil", "npm test --x", "! rm x", "time rm x", "(git x; (rm y))",
		"declare -n x=y; git", "let x=1; git", "unset 'a[$(rm)]'; git", "source x; git y", ". ./x", "git x\x00; rm", strings.Repeat("git x;", 10000),
		strings.Repeat("(", 5000) + "git" + strings.Repeat(")", 5000), "", " ", "git x $'\\n' ; rm", "git #\\\nrm", "git \\\r\nrm", "git \r#;rm", "git # a \\\\\nrm",
		"git\rrm; x", "echo a\n\n\nrm", "echo a;;rm", "git<<<$(rm)", "git x `echo \\`rm\\``", "$(git x)", "\"$(git x)\"", "git ${x#`rm`}",
	} {
		if v := p.judge(bash(command)); v.decision != ask {
			t.Errorf("%.200q: %s (%s)", command, v.decision, v.reason)
		}
	}
}

func TestDenyFindsWhatItIsAbout(t *testing.T) {
	p := policy(t, protocol.Permissions{Deny: []string{"bash(rm *)", "bash(git push *)"}})
	for want, commands := range map[string][]string{
		deny: {
			"rm -rf /", "rm", "echo a; rm x", "echo a && rm x", "a | rm x", "a & rm x", "(rm x)", "{ rm x; }", "$(rm x)", "echo `rm x`", "echo \"$(rm x)\"", "cat <(rm x)",
			"if a; then rm x; fi", "while a; do rm x; done", "f() { rm x; }", "/bin/rm x", "../../bin/rm x", "r''m x", "\"rm\" x", "\\rm x", "r\\m x", "'rm' x", "rm\tx", "rm \\\nx",
			"X=1 rm x", "X=1 Y=2 /bin/rm x", "env rm x", "env -i X=1 rm x", "/usr/bin/env rm x", "command rm x", "exec rm x", "builtin rm x", "nohup rm x", "timeout 5 rm x",
			"timeout -s KILL 5 nice -n 5 rm x", "xargs rm", "find . | xargs -0 /bin/rm -f", "find . -exec rm {} +", "sudo -u x rm y", "busybox rm x", "time rm x", "! rm x",
			"sh -c 'rm x'", "bash -lc 'echo; rm x'", "bash -o pipefail -c 'rm x'", "env sh -c \"rm x\"", "eval rm x", "eval 'r''m' x", "eval \"rm x\"", "trap 'rm x' EXIT", "sh -c \"sh -c 'rm x'\"",
			"echo x >$(rm y)", "X=$(rm y)", "export X=$(rm y)", "cat <<END\n$(rm x)\nEND", "for i in $(rm x); do :; done", "case $(rm x) in a) ;; esac", "git push", "git push --force origin x",
			"rm $X", "git push $(x)", "[[ $(rm x) ]]", "echo ${x:-$(rm y)}", "echo $((1 + $(rm x)))", "a=(1 $(rm x))", "coproc rm x", "watch 'rm x'", "echo a\nrm b", "setsid -f rm x", "rm>x",
		},
		ask: {
			"$X -rf /", "${X}m x", "$(echo rm) x", "r$X x", "r* x", "/bin/r? x", "{rm,-rf,x}", "[r]m x", "~/x y", "eval $X", "eval \"$(x)\"", "sh -c \"$X\"", "sh x.sh", "echo rm x | sh",
			"bash <<END\nrm x\nEND", "source x", ". x", "git $X", "git pu$X", "X=$'r\\155'; $X x", "$'r\\155' x", "alias ls=rm", "f() { :; }", "open 'quote", "sh -c \"rm$X\"",
			"env $X y", "xargs -I{} sh -c \"{}\"", strings.Repeat("echo a;", 8000), "env " + strings.Repeat("env ", 6000), "$\"rm\" x", "declare -n a=b", "${x@P}", "((x=1))",
			"eval eval eval eval eval eval 'x'", "unset 'a[$(rm)]'", "timeout 5 $X", "hash -p /bin/rm ls", "enable -f x y", "bash -s", "sh",
		},
		allow: {
			"ls", "echo rm x", "grep rm x", "git status", "git pull", "echo 'rm x'", "echo \"rm -rf /\"", "cat rm", "echo $X", "make && ./run > out", "echo $(date)", "X=1 make",
			"cat > f <<'END'\nrm x\nEND", "git commit -m 'rm x'", "for i in a b; do echo $i; done", "echo \\; rm", "# rm x", "rmdir x", "export A=b", "cd x; ls *.go", "",
			"bash -c 'ls | wc'", "env ls", "git log --grep push",
		},
	} {
		for _, command := range commands {
			if v := p.judge(bash(command)); v.decision != want {
				t.Errorf("%.200q: %s, want %s (%s)", command, v.decision, want, v.reason)
			}
		}
	}
}

func TestOrderAndDefault(t *testing.T) {
	file := func(tool string, paths ...string) *subject { return &subject{tool: tool, paths: paths} }
	for _, tt := range []struct {
		name string
		p    protocol.Permissions
		s    *subject
		want string
	}{
		{"nothing", protocol.Permissions{}, bash("rm -rf /"), allow},
		{"deny before allow", protocol.Permissions{Allow: []string{"bash"}, Deny: []string{"bash(rm *)"}}, bash("rm x"), deny},
		{"ask before allow", protocol.Permissions{Allow: []string{"bash"}, Ask: []string{"bash(rm *)"}}, bash("rm x"), ask},
		{"deny before ask", protocol.Permissions{Ask: []string{"bash"}, Deny: []string{"bash(rm *)"}}, bash("rm x"), deny},
		{"all of bash", protocol.Permissions{Allow: []string{"bash(*)"}, Default: deny}, bash("$(x) > y"), allow},
		{"default ask", protocol.Permissions{Default: ask}, bash("ls"), ask},
		{"default deny", protocol.Permissions{Default: deny, Allow: []string{"read"}}, bash("ls"), deny},
		{"default deny, allowed", protocol.Permissions{Default: deny, Allow: []string{"read"}}, file("read", "/x"), allow},
		{"default allow beside patterns", protocol.Permissions{Default: allow, Allow: []string{"bash(git *)"}}, bash("ls"), allow},
		{"other tools keep their default", protocol.Permissions{Allow: []string{"bash(git *)"}}, file("write", "/workspace/x"), allow},
		{"path", protocol.Permissions{Allow: []string{"write(/workspace/**)"}}, file("write", "/workspace/a/b"), allow},
		{"path elsewhere", protocol.Permissions{Allow: []string{"write(/workspace/**)"}}, file("write", "/tmp/a"), ask},
		{"path that a link leads elsewhere", protocol.Permissions{Allow: []string{"write(/workspace/**)"}}, file("write", "/workspace/l", "/tmp/a"), ask},
		{"denied by where a link leads", protocol.Permissions{Deny: []string{"read(secret/**)"}}, file("read", "/workspace/l", "/workspace/secret/x"), deny},
		{"denied as written", protocol.Permissions{Deny: []string{"read(secret/**)"}}, file("read", "/workspace/secret/x", "/tmp/x"), deny},
		{"the directory itself", protocol.Permissions{Deny: []string{"grep(secret/**)"}}, file("grep", "/workspace/secret"), deny},
		{"one name only", protocol.Permissions{Deny: []string{"read(/workspace/*.key)"}}, file("read", "/workspace/a/b.key"), allow},
		{"any depth", protocol.Permissions{Deny: []string{"read(**/*.key)"}}, file("read", "/workspace/a/b.key"), deny},
		{"others by name", protocol.Permissions{Deny: []string{"mcp__*"}}, &subject{tool: "mcp__github__delete", unreadable: true}, deny},
		{"others are not meant", protocol.Permissions{Deny: []string{"mcp__*"}}, bash("ls"), allow},
		{"every tool", protocol.Permissions{Ask: []string{"*"}}, file("read", "/x"), ask},
		{"unreadable input", protocol.Permissions{Deny: []string{"write(/etc/**)"}}, &subject{tool: "write", unreadable: true}, ask},
		{"unreadable and allowed by pattern", protocol.Permissions{Allow: []string{"write(/workspace/**)"}}, &subject{tool: "write", unreadable: true}, ask},
	} {
		if v := policy(t, tt.p).judge(tt.s); v.decision != tt.want {
			t.Errorf("%s: %s (%s)", tt.name, v.decision, v.reason)
		}
	}
}

func TestFaultsOfTheFileAreAllTold(t *testing.T) {
	_, err := Parse([]byte(`{"allow":["bsah(x)","bash()","bash(x","mcp__x(y)","","*(x)","read([)"],"deny":["Bash"],"default":"maybe",
		"hooks":[{"event":"before"},{"event":"stop","command":"x","webhook":"http://y"},{"event":"stop","command":"x","match":"bash"},
		{"event":"before_tool","command":"x","match":"nope"},{"event":"before_tool","command":"x","timeout_s":-1}]}`))
	for _, want := range []string{
		`there is no tool "bsah"`, `"bash()": the pattern is empty`, `"bash(x": must be`, `"mcp__x(y)": a pattern needs`, `rule "": must be`, `"*(x)": a pattern needs`,
		`"read([)": is no pattern of paths`, `there is no tool "Bash"`, `default: "maybe"`, "hooks[0]: event", "hooks[1]: must have", "hooks[2]: match: only", `hooks[3]: match: rule "nope"`, "hooks[4]: timeout_s",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in:\n%v", want, err)
		}
	}
	for _, bad := range []string{``, `[]`, `{"dney":["bash"]}`, `{} {}`, `{"deny":"bash"}`, `{"deny":["` + strings.Repeat("x", 600) + `"]}`, strings.Repeat(" ", 300<<10)} {
		if _, err := Parse([]byte(bad)); err == nil {
			t.Errorf("%.80q was taken", bad)
		}
	}
	if _, err := Parse([]byte(`{"allow":["bash(git *)","read"],"hooks":[{"event":"before_tool","match":"bash","webhook":"https://x/y"}]}`)); err != nil {
		t.Error(err)
	}
}

// TestWildcardsAgreeWithTheirMeaning holds both matchers against trying out: what
// an unknown may turn out to be, letter by letter.
func TestWildcardsAgreeWithTheirMeaning(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pattern := rapid.StringOfN(rapid.SampledFrom([]rune("ab*")), 0, 4, -1).Draw(t, "pattern")
		text := rapid.StringOfN(rapid.SampledFrom([]rune("ab\x00")), 0, 4, -1).Draw(t, "text")
		some, all := false, true
		for _, known := range fill(text) {
			if covers(pattern, known) {
				some = true
			} else {
				all = false
			}
		}
		if covers(pattern, text) && !all {
			t.Errorf("covers(%q, %q), but not all that it may be", pattern, text)
		}
		if some != touches(pattern, text) {
			t.Errorf("touches(%q, %q) is %v", pattern, text, !some)
		}
	})
}

// fill gives what a text may turn out to be, with up to four letters for each unknown.
func fill(text string) []string {
	before, after, found := strings.Cut(text, string(unknown))
	if !found {
		return []string{text}
	}
	var all []string
	words := []string{""}
	for range 5 {
		var longer []string
		for _, w := range words {
			for _, rest := range fill(after) {
				all = append(all, before+w+rest)
			}
			longer = append(longer, w+"a", w+"b")
		}
		words = longer
	}
	return all
}

func FuzzRules(f *testing.F) {
	for _, s := range []string{"bash(git *)", "write(/workspace/**)", "mcp__*", "*", "read([a-", "bash(", "glob({a,b}/**)"} {
		f.Add(s, "git status; rm -rf /", "/workspace/x")
	}
	f.Add("bash(*a*a*a*)", "sh -c 'eval \"$(x)\"' <<< ${x@P}", "/proc/self/root")
	f.Fuzz(func(t *testing.T, text, command, path string) {
		p, err := NewPolicy(protocol.Permissions{Deny: []string{text}})
		if err != nil {
			return
		}
		s := bash(command)
		if size := len(strings.Join(s.script.readings, "")); size > maxReadingBytes {
			t.Errorf("%d bytes of readings are kept of %d", size, len(command))
		}
		// A rule for every command and one for none of its words must agree that
		// whatever stands in it was found.
		if all := policy(t, protocol.Permissions{Deny: []string{"bash"}}).judge(s); all.decision != deny {
			t.Errorf("%q is not denied by bash", command)
		}
		for _, name := range tool.Names() {
			v := p.judge(&subject{tool: name, script: s.script, paths: []string{path}})
			if v.decision != allow && v.decision != ask && v.decision != deny || v.reason == "" {
				t.Errorf("%q %q: %+v", text, command, v)
			}
		}
	})
}

// FuzzNothingHidesFromDeny puts a forbidden command behind a script that is whole by
// itself, and into the places where a shell runs one. It is denied, or at the least not
// allowed where the script hides what it does.
func FuzzNothingHidesFromDeny(f *testing.F) {
	for _, s := range []string{"", "git x", "a; b", "a | b", "if a; then b; fi", "a $(b) `c`", "( a )", "{ a; }", "X=1 a", "time a", "a <<E\nE", "a 'b\nc'", "a # b", "a \\", "case a in b) c;; esac", "f() { a; }"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, script string) {
		before := parseScript(script)
		if before.opaque != "" || strings.Contains(script, "<<") || strings.HasSuffix(strings.TrimRight(script, " \t"), "\\") || len(script) > maxScriptBytes/4 {
			return // it may take what follows for its own
		}
		p := policy(t, protocol.Permissions{Allow: []string{"bash"}, Deny: []string{"bash(forbidden *)"}})
		if p.judge(&subject{tool: "bash", script: before}).decision == deny {
			return // it is in there already
		}
		for _, whole := range []string{
			script + "\nforbidden x", "forbidden x\n" + script, "(" + script + "\n)\nforbidden x", "true $(forbidden x)\n" + script,
			script + "\nif forbidden x; then a; fi", script + "\nenv A=b nice forbidden x", script + "\nsh -c 'forbidden x'", script + "\n/bin/forbidden x | a",
		} {
			s := parseScript(whole)
			if v := p.judge(&subject{tool: "bash", script: s}); v.decision != deny && s.opaque == "" {
				t.Errorf("%q: %+v", whole, v)
			}
		}
	})
}

func ExampleParse() {
	p, err := Parse([]byte(`{"allow": ["bash(git *)"], "deny": ["bash(git push *)"]}`))
	fmt.Println(p.Allow, p.Deny, err)
	// Output: [bash(git *)] [bash(git push *)] <nil>
}
