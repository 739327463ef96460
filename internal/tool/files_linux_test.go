package tool_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"carrel/internal/tool"
)

type input = map[string]any

// step is one call and what its result must hold.
type step struct {
	name, tool string
	input      input
	want       string // in the content
	failed     bool
}

func (s *sandbox) steps(steps []step) {
	s.t.Helper()
	for _, st := range steps {
		r := s.call(st.tool, st.input)
		if r.IsError != st.failed || !strings.Contains(r.Content, st.want) {
			s.t.Errorf("%s: error %v\n%.2000q\nwant in it %q", st.name, r.IsError, r.Content, st.want)
		}
	}
}

func TestReadWriteEdit(t *testing.T) {
	s := enter(t)
	long := strings.Repeat("x", 5000)
	s.steps([]step{
		{"make", "write", input{"path": "a/b/c.txt", "content": "one\ntwo\nthree\n"}, "made /workspace/a/b/c.txt: 14 bytes", false},
		{"read", "read", input{"path": "a/b/c.txt"}, "     1\tone\n     2\ttwo\n     3\tthree", false},
		{"part", "read", input{"path": "/workspace/a/b/c.txt", "offset": 2, "limit": 1}, "     2\ttwo\n[lines 2 to 2 of a file of 14 bytes; it goes on: read on with offset 3]", false},
		{"past the end", "read", input{"path": "a/b/c.txt", "offset": 9}, "has 3 lines; there is no line 9", true},
		{"edit", "edit", input{"path": "a/b/c.txt", "old_string": "two\n", "new_string": "2\n"}, "1 of 1 places, line 2", false},
		{"read again", "read", input{"path": "a/b/c.txt"}, "     2\t2\n", false},
		{"not there", "edit", input{"path": "a/b/c.txt", "old_string": "two", "new_string": "x"}, "does not stand in the file", true},
		{"twice", "write", input{"path": "twice", "content": "a\nb\na\n"}, "made", false},
		{"not unique", "edit", input{"path": "twice", "old_string": "a", "new_string": "c"}, "2 times (lines 1, 3)", true},
		{"all", "edit", input{"path": "twice", "old_string": "a", "new_string": "c", "replace_all": true}, "2 of 2 places", false},
		{"the same", "edit", input{"path": "twice", "old_string": "c", "new_string": "c"}, "are the same", true},
		{"nothing to find", "edit", input{"path": "twice", "old_string": "", "new_string": "c"}, "must not be empty", true},
		{"replace", "write", input{"path": "twice", "content": ""}, "replaced /workspace/twice: 0 bytes", false},
		{"empty", "read", input{"path": "twice"}, "[the file is empty]", false},
		{"long line", "write", input{"path": "long", "content": long + "\nshort"}, "made", false},
		{"is cut", "read", input{"path": "long"}, "[… 3000 bytes of this line left out]\n     2\tshort", false},
		{"no such file", "read", input{"path": "none"}, "/workspace/none: no such file or directory", true},
		{"no path", "read", input{}, "path: must not be empty", true},
		{"zero byte", "read", input{"path": "a\x00b"}, "zero byte", true},
		{"long path", "read", input{"path": strings.Repeat("p", 5000)}, "at most 4095", true},
		{"long name", "write", input{"path": strings.Repeat("p", 300), "content": "x"}, "file name too long", true},
		{"a directory", "read", input{"path": "a"}, "is a directory, not a file", true},
		{"write to one", "write", input{"path": "a", "content": "x"}, "is a directory", true},
		{"below a file", "write", input{"path": "twice/x", "content": "x"}, "not a directory", true},
		{"no object", "write", input{"path": 1}, "not what the tool takes", true},
		{"too much", "write", input{"path": "big", "content": strings.Repeat("<", 600<<10)}, "one call takes at most 524288", true},
		{"much", "write", input{"path": "big", "content": strings.Repeat("<", 512<<10)}, "524288 bytes", false},
		{"read only system", "write", input{"path": "/usr/x", "content": "x"}, "denied by the sandbox", true},
		{"outside", "read", input{"path": "/var/lib/x"}, "the sandbox lets tools write below /workspace", true},
		{"proc", "read", input{"path": "/proc/self/status"}, "Name:", false},
	})
	r := s.call("read", input{"path": "big"})
	if r.Bytes != 512<<10 || r.IsError || len(r.Content) > 3000 {
		t.Errorf("one line of %d bytes: %d bytes of text", r.Bytes, len(r.Content))
	}
}

func TestWriteKeepsModeLinkAndWhatItCannotReplace(t *testing.T) {
	s := enter(t)
	s.bash("umask 022; echo x > script; chmod 751 script; ln -s script link; echo x > sealed; chmod 444 sealed; ln -s nowhere/x dangling; : > new")
	s.steps([]step{
		{"through a link", "write", input{"path": "link", "content": "echo ran\n"}, "replaced /workspace/link", false},
		{"edit through a link", "edit", input{"path": "link", "old_string": "ran", "new_string": "RAN"}, "edited", false},
		{"sealed", "write", input{"path": "sealed", "content": "y"}, "the file's or directory's own mode does not allow it", true},
		{"edit sealed", "edit", input{"path": "sealed", "old_string": "x", "new_string": "y"}, "own mode does not allow it", true},
		{"dangling", "write", input{"path": "dangling", "content": "made"}, "made", false},
	})
	r := s.bash("stat -c '%a %F' script link; ./script; cat sealed nowhere/x; ls -A | grep carrel-")
	if !contains(r.Content, "751 regular file\n777 symbolic link\nRAN\nx\nmade") || contains(r.Content, ".tmp") {
		t.Errorf("%q", r.Content)
	}
}

func TestWhatIsNoTextFileIsRefusedAndNothingWaits(t *testing.T) {
	s := enter(t)
	s.bash(`mkfifo fifo; printf 'ab\000c' > binary; python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("sock")' 2>/dev/null; truncate -s 900M sparse; printf 'caf\351\n' > latin; ln -s loop loop`)
	s.steps([]step{
		{"fifo", "read", input{"path": "fifo"}, "is a named pipe, not a file", true},
		{"write to a fifo", "write", input{"path": "fifo", "content": "x"}, "is a named pipe", true},
		{"edit a fifo", "edit", input{"path": "fifo", "old_string": "a", "new_string": "b"}, "is a named pipe", true},
		{"grep a fifo", "grep", input{"path": "fifo", "pattern": "a"}, "is a named pipe", true},
		{"device", "read", input{"path": "/dev/zero"}, "is a device, not a file", true},
		{"binary", "read", input{"path": "binary"}, "binary file of 4 bytes", true},
		{"huge and empty", "read", input{"path": "sparse"}, "binary file of 943718400 bytes", true},
		{"edit of it", "edit", input{"path": "sparse", "old_string": "a", "new_string": "b"}, "edit takes files of at most", true},
		{"other encoding", "read", input{"path": "latin"}, "caf\uFFFD", false},
		{"loop", "read", input{"path": "loop"}, "too many levels", true},
		{"grep around them all", "grep", input{"pattern": "caf"}, "/workspace/latin:1:caf", false},
	})
}

func TestGlobAndGrep(t *testing.T) {
	s := enter(t)
	s.bash(`mkdir -p src/a/b .git/x 'we ird'; echo 'package one // Needle' > src/one.go; printf 'a\nb\nneedle 1\nc\nd\ne\nf\nneedle 2\ng\n' > src/a/two.txt
		echo needle > .git/x/needle.go; echo needle > src/a/b/three.ts; echo needle > 'we ird/four.go'; ln -s / root; mkdir closed; chmod 0 closed; for i in $(seq 30); do echo needle > src/a/b/f$i.js; done`)
	s.steps([]step{
		{"by ending", "glob", input{"pattern": "**/*.go"}, "/workspace/src/one.go\n/workspace/we ird/four.go\n[1 directories could not be read]", false},
		{"from a directory", "glob", input{"pattern": "a/**/*.{ts,txt}", "path": "src"}, "/workspace/src/a/b/three.ts\n/workspace/src/a/two.txt", false},
		{"absolute", "glob", input{"pattern": "/workspace/src/*.go"}, "/workspace/src/one.go", false},
		{"none", "glob", input{"pattern": "*.rs"}, "[no file below /workspace matches *.rs]", false},
		{"bounded", "glob", input{"pattern": "**/f*.js", "limit": 3}, "[3 of 30 names given]", false},
		{"no pattern", "glob", input{}, "pattern: must not be empty", true},
		{"bad pattern", "glob", input{"pattern": "[a"}, "is no pattern of file names", true},
		{"nowhere", "glob", input{"pattern": "*", "path": "nowhere"}, "no such file", true},
		{"lines", "grep", input{"pattern": "needle [0-9]"}, "/workspace/src/a/two.txt:3:needle 1\n/workspace/src/a/two.txt:8:needle 2", false},
		{"context", "grep", input{"pattern": "needle [12]", "context": 1}, "two.txt-2-b\n/workspace/src/a/two.txt:3:needle 1\n/workspace/src/a/two.txt-4-c\n--\n/workspace/src/a/two.txt-7-f\n", false},
		{"case", "grep", input{"pattern": "NEEDLE", "ignore_case": true, "glob": "*.go"}, "/workspace/src/one.go:1:package one // Needle\n/workspace/we ird/four.go:1:needle", false},
		{"glob with a path", "grep", input{"pattern": "needle", "glob": "src/**/*.ts"}, "three.ts:1:needle", false},
		{"names", "grep", input{"pattern": "needle", "files_only": true, "path": "src/a/two.txt"}, "/workspace/src/a/two.txt", false},
		{"bounded", "grep", input{"pattern": "needle", "limit": 2, "path": "src/a/b"}, "[stopped after 2 matches; there may be more", false},
		{"none", "grep", input{"pattern": "zebra"}, "[no match]", false},
		{"bad expression", "grep", input{"pattern": "(?=x)"}, "the syntax is RE2's", true},
		{"system", "grep", input{"pattern": "^root:", "path": "/etc"}, "no match", false},
	})
	if r := s.call("grep", input{"pattern": "needle"}); contains(r.Content, ".git") || contains(r.Content, "/root/") {
		t.Errorf("%q", r.Content)
	}
}

func TestSearchesAreBounded(t *testing.T) {
	s := enter(t)
	s.bash(`head -c 3000000 /dev/urandom | base64 -w0 > oneline; echo ' needle' >> oneline; seq 100000 > many; d=.; for i in $(seq 120); do d=$d/d; done; mkdir -p $d; echo needle > $d/deep`)
	r := s.call("grep", input{"pattern": ".", "limit": 100000, "path": "many"})
	if !r.Truncated || len(r.Content) > 40<<10 {
		t.Errorf("truncated %v, %d bytes", r.Truncated, len(r.Content))
	}
	s.steps([]step{
		{"deep", "grep", input{"pattern": "needle"}, "more than 100 deep were left out", false},
		{"expression that others choke on", "grep", input{"pattern": "(a|a)*(a|aa)*$", "path": "oneline"}, "oneline:1:", false},
		{"huge repetition", "grep", input{"pattern": "((a{1000}){1000}){1000}"}, "pattern:", true},
	})
}

// TestFileToolsReachNothingOfTheWorkers plants ways out of the workspace; the
// control is that the worker's tier, by the tests' own hand, has what they lead to.
func TestFileToolsReachNothingOfTheWorkers(t *testing.T) {
	s := enter(t)
	const canary = "carrel-canary-of-home"
	secret := filepath.Join(s.home, "secret")
	workerHas := func() string {
		content, err := os.ReadFile(secret)
		if err != nil {
			t.Fatal(err)
		}
		return string(content)
	}
	outside := filepath.Join(t.TempDir(), "outside")
	err := errors.Join(
		os.WriteFile(secret, []byte(canary), 0o666), os.Chmod(secret, 0o666), os.Chmod(s.home, 0o777),
		os.WriteFile(outside, []byte(canary), 0o666),
		os.Symlink("/home/agent/secret", filepath.Join(s.workspace, "link")),
		os.Symlink("/home/agent", filepath.Join(s.workspace, "dir")),
		os.Symlink("/proc/self/root/home/agent/secret", filepath.Join(s.workspace, "proc")),
		os.Symlink("../home/agent/secret", filepath.Join(s.workspace, "relative")),
		os.Symlink(outside, filepath.Join(s.workspace, "host")),
	)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{
		"link", "dir/secret", "proc", "relative", "/home/agent/secret", "/proc/self/root/home/agent/secret", "/proc/1/root/home/agent/secret",
		"/proc/self/cwd/home/agent/secret", "/proc/1/cwd/secret", "/proc/1/environ", "/proc/1/mem", "/proc/self/mem", "../../home/agent/secret",
		"/proc/self/task/self/root/home/agent/secret", "/workspace/../home/agent/secret",
	} {
		for name, in := range map[string]input{
			"read": {}, "write": {"content": "planted"}, "edit": {"old_string": "canary", "new_string": "planted"},
			"glob": {"pattern": "**"}, "grep": {"pattern": "canary"},
		} {
			in["path"] = path
			r := s.call(name, in)
			if !r.IsError || contains(r.Content, canary) {
				t.Errorf("%s %s: %q", name, path, r.Content)
			}
			if home := strings.Contains(path, "link") || path == "dir/secret"; home && !contains(r.Content, "denied by the sandbox") {
				t.Errorf("%s %s is not explained: %q", name, path, r.Content)
			}
		}
	}
	// This one leads to a place in the sandbox's own /tmp: not to the host's.
	s.call("write", input{"path": "host", "content": "planted"})
	if content, err := os.ReadFile(outside); err != nil || string(content) != canary {
		t.Errorf("the host's file is %q, %v", content, err)
	}
	if r := s.call("write", input{"path": "dir/new", "content": "x"}); !r.IsError {
		t.Errorf("a file was made in the worker's home: %q", r.Content)
	}
	if got := workerHas(); got != canary {
		t.Errorf("the worker's file is %q", got)
	}
	// The control of the links themselves: the same lead to what tools may have.
	s.bash("echo inside > /tmp/inside; ln -s /tmp/inside tmplink")
	s.steps([]step{{"control", "read", input{"path": "tmplink"}, "inside", false}})
}

// TestHardLinkIntoTheWorkersHomeIsMadeByNobody: both directories are mounts of
// their own, so that no link crosses, whichever tier tries.
func TestHardLinkIntoTheWorkersHomeIsMadeByNobody(t *testing.T) {
	s := enter(t)
	if err := os.WriteFile(filepath.Join(s.home, "secret"), nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if r := s.bash("ln /home/agent/secret stolen; ln /etc/passwd stolen2; ls"); contains(r.Content, "\nstolen") || !r.IsError && contains(r.Content, "stolen2\n") {
		t.Errorf("%q", r.Content)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(s.home, "secret"), &st); err != nil || st.Nlink != 1 {
		t.Errorf("%d links, %v", st.Nlink, err)
	}
}

func TestSideBySideEditsLoseNothing(t *testing.T) {
	s := enter(t)
	s.bash("seq -f 'line %g.' 20 > f")
	var calls []*pending
	for i := range 8 {
		calls = append(calls, s.start("edit", input{"path": "f", "old_string": "line " + string(rune('1'+i)) + ".", "new_string": "LINE."}))
	}
	for _, c := range calls {
		if r := c.wait(); r.IsError {
			t.Errorf("%q", r.Content)
		}
	}
	if r := s.bash("grep -c LINE f; wc -l < f; ls -A"); !contains(r.Content, "8\n20\n") || contains(r.Content, ".tmp") {
		t.Errorf("%q", r.Content)
	}
}

func TestResolveFollowsLinksAsTheToolsSeeThem(t *testing.T) {
	s := enter(t)
	s.bash("mkdir real; ln -s real l; ln -s /tmp t; ln -s l/../x y; ln -s loop loop")
	for path, want := range map[string]string{
		"l/new": "/workspace/real/new", "t/a/../b": "/tmp/b", "/workspace/y": "/workspace/x", "none/x": "/workspace/none/x", ".": "/workspace",
		"dir": "/workspace/dir", "loop": "/workspace/loop",
	} {
		p := s.send(order{Resolve: path}, "")
		<-p.done
		if p.dir != want || p.text != "<nil>" {
			t.Errorf("%s leads to %q (%s), want %q", path, p.dir, p.text, want)
		}
	}
}

func TestDefinitionsNameEveryTool(t *testing.T) {
	definitions := tool.NewSet(tool.SetOptions{}).Definitions()
	if len(definitions) != len(tool.Names()) {
		t.Fatalf("%d definitions of %d tools", len(definitions), len(tool.Names()))
	}
	for i, d := range definitions {
		if d.Name != tool.Names()[i] || (d.Builtin == "") != (d.Description != "" && len(d.InputSchema) > 0) {
			t.Errorf("%+v", d)
		}
	}
}
