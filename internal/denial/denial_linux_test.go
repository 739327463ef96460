package denial

import (
	"io/fs"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"carrel/protocol"
)

// look is a system in which /etc/secret is not to be read.
func look(path string) (exists, readable bool) {
	switch path {
	case "/etc/passwd", "/usr/share/doc", "/usr/bin/python3":
		return true, true
	case "/etc/secret":
		return true, false
	}
	return false, false
}

func TestLastWordsOfCommandsNameTheirLayer(t *testing.T) {
	for _, c := range []struct {
		says string
		code int // 0 stands for 1
		want string
	}{
		// The network, as the field's programs tell of it.
		{"curl: (6) Could not resolve host: example.com", 6, "network-namespace network example.com"},
		{"curl: (7) Failed to connect to 192.0.2.1 port 80 after 0 ms: Could not connect to server", 7, "network-namespace network 192.0.2.1"},
		{"wget: unable to resolve host address 'example.com'", 4, "network-namespace network example.com"},
		{"ssh: Could not resolve hostname example.com: Temporary failure in name resolution", 255, "network-namespace network example.com"},
		{"ssh: connect to host 192.0.2.1 port 22: Permission denied", 255, "landlock tcp 192.0.2.1"},
		{"fatal: unable to access 'https://example.com/x.git/': Could not resolve host: example.com", 128, "network-namespace network example.com"},
		{"W: Temporary failure resolving 'deb.debian.org'", 100, "network-namespace network deb.debian.org"},
		{"ping: connect: Network is unreachable", 2, "network-namespace network "},
		{"npm error request to https://registry.npmjs.org/x failed, reason: getaddrinfo EAI_AGAIN registry.npmjs.org", 1, "network-namespace network registry.npmjs.org"},
		{"Error: connect EACCES 192.0.2.1:80", 1, "landlock tcp 192.0.2.1:80"},
		{"dial tcp 192.0.2.1:80: connect: permission denied", 1, "landlock tcp 192.0.2.1:80"},
		{"dial tcp: lookup example.com: Temporary failure in name resolution", 1, "network-namespace network example.com"},
		{"bash: connect: Permission denied\nbash: line 1: /dev/tcp/192.0.2.1/80: Permission denied", 1, "landlock tcp 192.0.2.1/80"},
		{"urllib.error.URLError: <urlopen error [Errno -3] Temporary failure in name resolution>", 1, "network-namespace network "},
		{"  File \"x.py\", line 3, in <module>\n    s.connect(('192.0.2.1', 80))\nPermissionError: [Errno 13] Permission denied", 1, "landlock tcp "},

		// Files.
		{"sh: 1: cannot create /etc/x: Read-only file system", 2, "mount-namespace read-only /etc/x"},
		{"touch: cannot touch '/usr/a b': Read-only file system", 1, "mount-namespace read-only /usr/a b"},
		{"OSError: [Errno 30] Read-only file system: '/etc/x'", 1, "mount-namespace read-only /etc/x"},
		{"Error: EROFS: read-only file system, open '/etc/x'", 1, "mount-namespace read-only /etc/x"},
		{"open /etc/x: read-only file system", 1, "mount-namespace read-only /etc/x"},
		{"/bin/bash: line 3: /usr/bin/x: Read-only file system", 1, "mount-namespace read-only /usr/bin/x"},
		{"/bin/bash: line 3: x: Read-only file system", 1, "mount-namespace read-only "},
		{"/etc/x: Read-only file system", 1, "mount-namespace read-only /etc/x"},
		{"touch: cannot touch 'x': Read-only file system", 1, "mount-namespace read-only "},
		{"bash: line 1: /etc/passwd: Permission denied", 1, "mount-namespace read-only /etc/passwd"},
		{"PermissionError: [Errno 13] Permission denied: '/etc/passwd'", 1, "mount-namespace read-only /etc/passwd"},
		{"mv: cannot move '/workspace/a' to '/etc/passwd': Permission denied", 1, "mount-namespace read-only /etc/passwd"},
		{"cat: /home/agent/secret: Permission denied", 1, "landlock places /home/agent/secret"},
		{"Error: EACCES: permission denied, open '/home/agent/x'", 1, "landlock places /home/agent/x"},
		{"open /home/agent/x: permission denied", 1, "landlock places /home/agent/x"},
		{"sh: 1: cannot create /proc/sys/kernel/core_pattern: Permission denied", 2, "landlock places /proc/sys/kernel/core_pattern"},

		// The kernel's surface, and other users.
		{"mount: /mnt: permission denied.", 32, "seccomp system-call "},
		{"mount: /mnt: must be superuser to use mount.", 32, "user-namespace one-user "},
		{"unshare: unshare failed: Operation not permitted", 1, "seccomp system-call "},
		{"strace: test_ptrace_get_syscall_info: PTRACE_TRACEME: Operation not permitted", 1, "seccomp system-call "},
		{"mknod: /tmp/x: Operation not permitted", 1, "seccomp system-call "},
		{"dmesg: read kernel buffer failed: Operation not permitted", 1, "seccomp system-call "},
		{"OSError: [Errno 38] Function not implemented", 1, "seccomp system-call "},
		{"sh: 1: kill: Operation not permitted", 1, "landlock signals "},
		{"E: setgroups 65534 failed - setgroups (1: Operation not permitted)", 100, "user-namespace one-user "},
		{`sudo: The "no new privileges" flag is set, which prevents sudo from running as root.`, 1, "no-new-privs set-user-id "},

		// Limits.
		{"sh: 1: Cannot fork", 2, "limits processes "},
		{"bash: fork: retry: Resource temporarily unavailable", 254, "limits processes "},
		{"RuntimeError: can't start new thread", 1, "limits processes "},
		{"dd: error writing '/tmp/x': No space left on device", 1, "limits tmp-size /tmp/x"},
		{"dd: error writing 'x': No space left on device", 1, "limits space "},
		{"cp: error writing '/workspace/x': No space left on device", 1, "quota disk /workspace/x"},
		{"cp: error writing '/workspace/x': Disk quota exceeded", 1, "quota disk /workspace/x"},
		{"Error: ENOSPC: System limit for number of file watchers reached, watch '/workspace'", 1, "limits inotify "},
		{"dd: error writing '/tmp/x': File too large", 1, "limits file-size /tmp/x"},
		{"File size limit exceeded", 153, "limits file-size "},
		{"bash: line 1: 74 File size limit exceededhead -c 1G /dev/zero > /tmp/x", 153, "limits file-size "},
		{"OSError: [Errno 24] Too many open files: 'x'", 1, "limits open-files "},
		{"OSError: [Errno 12] Cannot allocate memory", 1, "limits memory "},
		{"Bad system call", 159, "seccomp system-call "},

		// What is no denial of the sandbox, and must not be called one.
		{"sh: 1: ./script: Permission denied", 126, ""},
		{"bash: line 1: /workspace/script: Permission denied", 126, ""},
		{"cat: mine: Permission denied", 1, ""},
		{"/usr/bin/env: ‘mine’: Permission denied", 1, ""},
		{"cat: /workspace/mine: Permission denied", 1, ""},
		{"touch: cannot touch '/tmp/closed/x': Permission denied", 1, ""},
		{"/bin/bash: line 18: shut/x: Permission denied", 1, ""},
		{"rm: cannot remove 'nothing': No such file or directory", 1, ""},
		{"rm: cannot remove 'mount: x': Operation not permitted", 1, ""},
		{"sh: 1: kill: No such process", 1, ""},
		{"bash: line 1: /etc/passwd: Permission denied", 126, ""},
		{"cat: /etc/secret: Permission denied", 1, ""},
		{"Error: spawn /usr/share/doc EACCES", 1, ""},
		{"  File \"subprocess.py\", line 1, in _execute_child\nPermissionError: [Errno 13] Permission denied: '/usr/share/doc'", 1, ""},
		{"bash: ./x: /etc/passwd: bad interpreter: Permission denied", 126, ""},
		{"git@example.com: Permission denied (publickey).", 128, ""},
		{"BlockingIOError: [Errno 11] Resource temporarily unavailable", 1, ""},
		{"psql: could not connect to server: No such file or directory", 2, ""},
		{"chmod: changing permissions of '/workspace/x': Operation not permitted", 1, ""},
		{"chown: changing ownership of 'x': Operation not permitted", 1, ""},
		{"test failed: want 3, got 4", 1, ""},
		{"", 1, ""},
	} {
		t.Run(c.says, func(t *testing.T) {
			got := ""
			if d := classify(c.says+"\n", max(c.code, 1), look); d != nil {
				got = strings.Join([]string{d.Layer, d.Rule, d.Target}, " ")
				if !d.Inferred || !strings.Contains(d.Text, d.Layer+", likely)") || !strings.HasPrefix(d.Text, "carrel: ") || strings.Contains(d.Text, "\n") {
					t.Errorf("it says %+v", d)
				}
				if !slices.Contains(Layers(), d.Layer) {
					t.Errorf("%s is no layer", d.Layer)
				}
			}
			if got != c.want {
				t.Errorf("it is %q, want %q", got, c.want)
			}
		})
	}
}

func TestOnlyFailuresAreExplainedAndByTheirStandardErrorFirst(t *testing.T) {
	for _, c := range []struct {
		name, stdout, stderr string
		end                  Ending
		want                 string
	}{
		{"ended well", "", "touch: /etc/x: Read-only file system\n", Ending{}, ""},
		{"a log that was searched", "log: /etc/x: Read-only file system\n", "grep: nothing: No such file or directory\n", Ending{Code: 2}, ""},
		{"all on one output", "touch: /etc/x: Read-only file system\n", "", Ending{Code: 1}, "read-only"},
		{"the last of two", "", "touch: /etc/x: Read-only file system\nsh: 2: Cannot fork\n", Ending{Code: 1}, "processes"},
		{"a signal without a word", "", "", Ending{Code: 159, Signal: "SIGSYS"}, "system-call"},
		{"another", "out", "", Ending{Code: 153}, "file-size"},
		{"killed", "", "", Ending{Code: 137, Signal: "SIGKILL"}, ""},
		{"long ago", "", "x: /etc/x: Read-only file system\n" + strings.Repeat("compiling\n", 10_000), Ending{Code: 1}, ""},
		{"after much", "", strings.Repeat("compiling\n", 10_000) + "x: /etc/x: Read-only file system\n", Ending{Code: 1}, "read-only"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var w Watch
			for piece := range slices.Chunk([]byte(c.stdout), 7) {
				w.Write(false, string(piece))
			}
			for piece := range slices.Chunk([]byte(c.stderr), 7) {
				w.Write(true, string(piece))
			}
			got := ""
			if d := w.Denial(c.end); d != nil {
				got = d.Rule
			}
			if got != c.want {
				t.Errorf("it is %q, want %q", got, c.want)
			}
		})
	}
}

func TestErrorsOfFileToolsNameTheirLayerForSure(t *testing.T) {
	for _, c := range []struct {
		name  string
		err   error
		path  string
		write bool
		want  string
	}{
		{"read-only mount", unix.EROFS, "/etc/x", true, "mount-namespace read-only"},
		{"no rule to read", unix.EACCES, "/home/agent/x", false, "landlock places"},
		{"no rule to write", &fs.PathError{Op: "open", Err: unix.EACCES}, "/usr/bin/x", true, "landlock places"},
		{"a mode of the host's", unix.EACCES, "/etc/shadow", false, ""},
		{"a mode of the user's", unix.EACCES, "/workspace/x", true, ""},
		{"a neighbour by name", unix.EACCES, "/workspaces/x", true, "landlock places"},
		{"full /tmp", unix.ENOSPC, "/tmp/x", true, "limits tmp-size"},
		{"full workspace", unix.ENOSPC, "/workspace/x", true, "quota disk"},
		{"quota", unix.EDQUOT, "/workspace/x", true, "quota disk"},
		{"size", unix.EFBIG, "/workspace/x", true, "limits file-size"},
		{"not there", unix.ENOENT, "/home/agent/x", false, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := ""
			if d := OfError(c.err, c.path, c.write); d != nil {
				got = d.Layer + " " + d.Rule
				if d.Inferred || d.Target != c.path || strings.Contains(d.Text, "likely") {
					t.Errorf("it says %+v", d)
				}
			}
			if got != c.want {
				t.Errorf("it is %q, want %q", got, c.want)
			}
		})
	}
}

// What a tool prints becomes part of a line that others read.
func TestTargetsPrintAndAreBounded(t *testing.T) {
	hostile := "/etc/" + strings.Repeat("\x1b[2Jé\u202e", 90) + "\n"
	d := OfError(unix.EROFS, hostile, true)
	if len(d.Target) > protocol.MaxDenialBytes || !utf8.ValidString(d.Target) || strings.ContainsAny(d.Text, "\n\x1b\u202e") {
		t.Errorf("%d bytes: %q", len(d.Target), d.Text)
	}
}

func FuzzClassify(f *testing.F) {
	f.Add("sh: 1: cannot create '/etc/\x1b': Read-only file system", 2)
	f.Add("connect to host \xff: Permission denied", 1)
	f.Fuzz(func(t *testing.T, text string, code int) {
		d := classify(text, code, func(string) (bool, bool) { return true, true })
		if d != nil && (strings.ContainsAny(d.Text, "\n\x1b") || !utf8.ValidString(d.Text) || len(d.Target) > protocol.MaxDenialBytes) {
			t.Errorf("%q gives %+v", text, d)
		}
	})
}
