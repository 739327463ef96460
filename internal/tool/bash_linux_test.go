package tool_test

import (
	"fmt"
	"strings"
	"testing"
)

func contains(text, part string) bool { return strings.Contains(text, part) }

func TestShellKeepsWhatAShellKeeps(t *testing.T) {
	s := enter(t)
	for _, step := range []struct {
		name, command, want string
		failed              bool
	}{
		{"first", "echo one", "one", false},
		{"the other output", "echo two >&2", "two", false}, // two pipes: which is read first, nothing says
		{"no output", "true", "[no output]", false},
		{"status", "(exit 3)", "[exit status 3]", true},
		{"directory", "mkdir -p 'a dir' && cd 'a dir'; pwd", "/workspace/a dir", false},
		{"directory stays", "pwd", "/workspace/a dir", false},
		{"variable", "X=1; export Y='2 3'; f() { echo \"f $1\"; }", "[no output]", false},
		{"variable stays", "echo $X $Y; f z; sh -c 'echo child $Y'", "1 2 3\nf z\nchild 2 3", false},
		{"stdin is empty", "cat; read x; echo \"read said $?\"", "read said 1", false},
		{"open quote", "echo 'never closed", "unexpected EOF", true},
		{"after it", "echo fine", "fine", false},
		{"open here-document", "cat <<END\nhello", "hello", false},
		{"here-document", "cat <<'END'\n$HOME\nEND\necho after", "$HOME\nafter", false},
		{"single quote", `echo "it's" 'a'"'"'b'`, "it's a'b", false},
		{"break", "break; continue; echo on", "on", false},
		{"return", "return 4; echo on", "on", false},
		{"backslash at the end", `echo x \`, "x", false},
		{"comment at the end", "echo x # y", "x", false},
		{"redirection of the shell", "exec >/tmp/elsewhere 2>&1; echo lost", "[no output]", false},
		{"is undone", "echo back; cat /tmp/elsewhere", "back\nlost", false},
		{"closed report", "exec 3>&-; echo x", "x", false},
		{"options that would show us", "set -xv; echo traced", "traced", false},
		{"are taken back", "echo plain", "plain", false},
		{"unset is an error", "set -u; true", "[no output]", false},
		{"still there", "echo here", "here", false},
		{"newlines", "for i in 1 2\ndo\n  echo $i\ndone\n\n", "1\n2", false},
		{"unicode", "echo 分析 文件", "分析 文件", false},
		{"binary", `printf 'a\377\000b'`, "a\uFFFD\x00b", false},
		{"background", "sleep 100 & echo started", "started", false},
		{"job is known", "jobs -p | wc -l", "1", false},
	} {
		r := s.bash(step.command)
		if !strings.Contains(r.Content, step.want) || r.IsError != step.failed {
			t.Errorf("%s: error %v\n%q\nwant in it %q", step.name, r.IsError, r.Content, step.want)
		}
		if step.name == "are taken back" && r.Content != "plain" {
			t.Errorf("%s: %q", step.name, r.Content)
		}
	}
}

func TestShellThatEndsIsReplacedWhereItWas(t *testing.T) {
	for _, end := range []struct {
		name, command, want string
		failed              bool
	}{
		{"exit", "echo before; exit 3", "before\n[the command ended the shell with exit status 3", true},
		{"exit well", "exit", "exit status 0", false},
		{"exec", "exec echo gone", "gone\n[the command ended the shell with exit status 0", false},
		{"exec of nothing", "exec /nowhere/x", "No such file", true},
		{"set -e", "set -e; false; echo not reached", "[the command ended the shell with exit status 1", true},
		{"killed", "kill -KILL $$", "the shell was ended by SIGKILL", true},
		{"trap", "trap 'echo trapped' EXIT; exit 2", "trapped", true},
		{"stdin closed", "exec 0<&-; kill -TERM $$", "SIGTERM", true},
	} {
		t.Run(end.name, func(t *testing.T) {
			s := enter(t)
			s.bash("mkdir here; cd here; export V=1")
			r := s.bash(end.command)
			if !strings.Contains(r.Content, end.want) || r.IsError != end.failed {
				t.Errorf("error %v: %q, want in it %q", r.IsError, r.Content, end.want)
			}
			if strings.Contains(r.Content, "not reached") {
				t.Errorf("%q", r.Content)
			}
			if r := s.bash("pwd; echo \"v=$V\""); r.Content != "/workspace/here\nv=" {
				t.Errorf("afterwards: %q", r.Content)
			}
		})
	}
}

func TestRestartAndNextRunKeepTheDirectoryAlone(t *testing.T) {
	s := enter(t)
	s.bash("mkdir -p d; cd d; export V=1; sleep 1000 & echo $! > pid")
	if r := s.call("bash", map[string]any{"restart": true}); r.IsError || !contains(r.Content, "/workspace/d") {
		t.Errorf("restart: %+v", r)
	}
	if r := s.bash("pwd; echo \"v=$V\"; kill -0 $(cat pid) || echo gone"); !contains(r.Content, "/workspace/d\nv=\n") || !contains(r.Content, "gone") {
		t.Errorf("after the restart: %q", r.Content)
	}
	s.bash("export V=2; sleep 1000 & echo $! > pid")
	if dir := s.newRun(); dir != "/workspace/d" {
		t.Errorf("the next run starts in %q", dir)
	}
	if r := s.bash("pwd; echo \"v=$V\"; kill -0 $(cat pid) || echo gone"); !contains(r.Content, "/workspace/d\nv=\n") || !contains(r.Content, "gone") {
		t.Errorf("in the next run: %q", r.Content)
	}
	s.bash("rm -rf /workspace/d")
	s.newRun()
	if r := s.bash("pwd"); !contains(r.Content, "the directory of the last command is gone; this is /workspace") {
		t.Errorf("in a directory that is gone: %q", r.Content)
	}
}

func TestCommandThatTakesTooLongIsStoppedWithAllItStarted(t *testing.T) {
	s := enter(t)
	s.bash("mkdir d; cd d")
	r := s.call("bash", map[string]any{
		"command": "echo begun; (setsid sleep 1000 & echo $! > pid); sleep 1000; echo not reached", "timeout_s": 1.5,
	})
	if !r.IsError || !contains(r.Content, "begun\n[stopped after 1.5s, its time limit") || contains(r.Content, "not reached") {
		t.Errorf("%q", r.Content)
	}
	if r := s.bash("pwd; kill -0 $(cat pid) || echo gone"); !contains(r.Content, "/workspace/d") || !contains(r.Content, "gone") {
		t.Errorf("afterwards: %q", r.Content)
	}
	// Neither a trap nor a stopped tree is a way to stay.
	r = s.call("bash", map[string]any{"command": "trap '' TERM; echo begun; sleep 1000", "timeout_s": 1})
	if !r.IsError || !contains(r.Content, "begun\n[stopped after 1s") {
		t.Errorf("%q", r.Content)
	}
}

func TestCanceledCallEndsItsCommand(t *testing.T) {
	s := enter(t)
	p := s.send(order{ID: "it", Call: call(t, "bash", map[string]any{"command": "echo ready; sleep 1000"})}, "ready")
	<-p.seen
	if err := s.in.Encode(order{Cancel: "it"}); err != nil {
		t.Fatal(err)
	}
	if r := p.wait(); !r.IsError || !contains(r.Content, "ready\n[stopped: context canceled") {
		t.Errorf("%q", r.Content)
	}
	if r := s.bash("echo again"); r.Content != "again" {
		t.Errorf("%q", r.Content)
	}
}

func TestOutputIsStreamedAndBoundedWithItsTrueSize(t *testing.T) {
	s := enter(t)
	p := s.send(order{Call: call(t, "bash", map[string]any{"command": "echo now; read x < <(sleep 0.1); echo later"})}, "now")
	<-p.seen // while the command still runs
	p.wait()
	if p.streamed != "now\nlater\n" {
		t.Errorf("streamed %q", p.streamed)
	}
	p = s.start("bash", map[string]any{"command": "echo head; head -c 1000000000 /dev/zero; echo; echo tail"})
	r := p.wait()
	const size = 1000000000 + 5 + 1 + 5
	if r.Bytes != size || !r.Truncated || r.IsError || !strings.HasPrefix(r.Content, "head\n") ||
		!contains(r.Content, "tail\n["+fmt.Sprint(size)+" bytes of output in all]") || len(r.Content) > 33<<10 {
		t.Errorf("%d bytes, truncated %v, error %v, %d bytes of text: %.100q … %q", r.Bytes, r.Truncated, r.IsError, len(r.Content), r.Content, r.Content[max(0, len(r.Content)-100):])
	}
	if n := len(p.streamed); n < 1<<20-64<<10 || n > 1<<20+64<<10 || !contains(p.streamed, "counted but not shown") {
		t.Errorf("%d bytes were streamed", n)
	}
}

func TestOutputOfTheBackgroundComesWithTheNextCommand(t *testing.T) {
	s := enter(t)
	s.bash("mkfifo go; (read x < go; echo from the background; echo x > go) & true")
	// The shell waits for the answer, so the line was written before its report.
	r := s.bash("echo x > go; read x < go; echo mine")
	if !contains(r.Content, "from the background\n") || !contains(r.Content, "mine") {
		t.Errorf("%q", r.Content)
	}
}

func TestCommandsTakeTurnsAndFilesDoNotWait(t *testing.T) {
	s := enter(t)
	s.bash("mkfifo hold; : > log")
	long := s.send(order{Call: call(t, "bash", map[string]any{"command": "echo begun; cat hold; echo 1 >> log"})}, "begun")
	<-long.seen
	next := s.start("bash", map[string]any{"command": "cat log; echo 2 >> log"})
	if r := s.call("write", map[string]any{"path": "free", "content": "x"}); r.IsError {
		t.Errorf("a file tool beside a command: %q", r.Content)
	}
	select {
	case <-next.done:
		t.Error("the second command did not wait")
	default:
	}
	other := enterRelease(s)
	long.wait()
	<-other
	if r := next.wait(); r.Content != "1" {
		t.Errorf("%q", r.Content)
	}
}

// enterRelease ends the wait for the pipe "hold" from outside.
func enterRelease(s *sandbox) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		openAndClose(s.workspace + "/hold")
	}()
	return done
}

func TestWhatOutputCannotDo(t *testing.T) {
	s := enter(t)
	// Neither stdout nor the descriptor that a command would find is the report's.
	r := s.bash(`printf '2 0 /tmp\n\0'; printf '1 0 /tmp\n\0' >&3; printf '2 0 /tmp\n\0' 1>&3; echo end; exit_with() { return 7; }; exit_with`)
	if !contains(r.Content, "end\n") || !contains(r.Content, "Bad file descriptor") || !contains(r.Content, "exit status 7") {
		t.Errorf("%q", r.Content)
	}
	if r := s.bash("ls /proc/self/fd | wc -l"); r.Content != "4" { // 0 1 2 and ls's own
		t.Errorf("descriptors of a command: %q", r.Content)
	}
}

func TestBadBashInputIsTold(t *testing.T) {
	s := enter(t)
	for _, tt := range []struct {
		name  string
		input any
		want  string
	}{
		{"nothing", map[string]any{}, "command: must not be empty"},
		{"no object", "text", "not what the tool takes"},
		{"a list", map[string]any{"command": []string{"a"}}, "not what the tool takes"},
		{"zero byte", map[string]any{"command": "a\x00b"}, "zero byte"},
		{"too long", map[string]any{"command": strings.Repeat("x", 200<<10)}, "at most 131072 are allowed"},
	} {
		if r := s.call("bash", tt.input); !r.IsError || !contains(r.Content, tt.want) {
			t.Errorf("%s: %q", tt.name, r.Content)
		}
	}
	if r := s.call("nonsense", map[string]any{}); !r.IsError || !contains(r.Content, `there is no tool "nonsense"`) {
		t.Errorf("%q", r.Content)
	}
	long := "echo " + strings.Repeat("y", 120<<10)
	if r := s.bash(long); r.IsError || r.Bytes != 120<<10+1 {
		t.Errorf("a long command: %.200q", r.Content)
	}
}

func TestDenialsOfTheSandboxAreExplained(t *testing.T) {
	s := enter(t)
	for _, tt := range []struct{ command, want string }{
		{"cat /home/agent/secret", "carrel: /home/agent/secret is out of reach (landlock, likely)"},
		{"echo x > /usr/bin/x", "carrel: /usr/bin/x is read-only here (mount-namespace, likely); write below /workspace"},
		{"echo x > /etc/passwd", "carrel: /etc/passwd is read-only here (mount-namespace, likely)"},
		{"exec 5<>/dev/tcp/192.0.2.1/80", "carrel: no network in this sandbox"},
		{"ls nothing 2>/dev/null || touch /etc/x", "carrel: /etc/x is read-only here (mount-namespace, likely)"},
		{"mount -t tmpfs none /tmp", "(user-namespace, likely)"},
		{"unshare -r true", "(seccomp, likely)"},
		{"kill -9 1", "(landlock, likely)"},
	} {
		if r := s.bash(tt.command); !r.IsError || !contains(r.Content, tt.want) || r.Denial == nil || strings.Count(r.Content, "carrel: ") != 1 {
			t.Errorf("%s: %q, %+v", tt.command, r.Content, r.Denial)
		}
	}
}

func TestMistakesOfOnesOwnAreNotCalledDenials(t *testing.T) {
	s := enter(t)
	s.bash("echo 'echo ran' > script; echo x > closed; chmod 0 closed; mkdir shut; chmod 0 shut")
	for _, command := range []string{
		"./script", "/workspace/script", "cat closed", "cat /workspace/closed", "touch shut/x", "touch /workspace/shut/x", "ls shut",
		"rm nothing", "rm -r /workspace/nothing", "sleep 0 & p=$!; wait; kill $p", "cat /etc/nothing", "/etc/passwd", "cat /usr/bin", "false",
		"mkdir /workspace/script/x", "ls / > shut/x", "chown 0 script", "no-such-program", "exit 3",
	} {
		if r := s.bash(command); !r.IsError || r.Denial != nil || contains(r.Content, "carrel: ") {
			t.Errorf("%s: %q, %+v", command, r.Content, r.Denial)
		}
	}
	s.bash("chmod 700 shut")
}
