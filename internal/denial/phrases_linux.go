package denial

import (
	"path"
	"regexp"
	"slices"
	"strings"

	"carrel/internal/jail"
	"carrel/protocol"
)

// phrase is a row of what commands say.
type phrase struct {
	// says are words of which one stands in the line, in small letters; with, if there
	// is any, of which one does besides.
	says []string
	with []string
	// not are words that speak against it.
	not []string
	why why
	// target finds in the line what it was about; nil = there is nothing to find.
	target func(line string) string
}

var (
	systemCall = why{jail.LayerSeccomp, "system-call", "a system call that the sandbox does not allow"}
	noOther    = why{jail.LayerUser, "one-user", "nobody can become root or another user in this sandbox"}
	noPrivs    = why{jail.LayerNoNewPrivs, "set-user-id", "no program can gain privileges in this sandbox, sudo and su among them"}
	noSignal   = why{jail.LayerLandlock, "signals", "only processes of this very run can be signaled"}
	processes  = why{layerLimits, "processes", "the sandbox's limit of processes and threads is reached"}
	memory     = why{layerLimits, "memory", "the sandbox's limit of memory is reached"}
	noSpace    = why{layerLimits, "space", "the disk quota, or the sandbox's /tmp, is used up: remove what is not needed"}
	openFiles  = why{layerLimits, "open-files", "the limit of open files is reached"}
	watches    = why{layerLimits, "inotify", "the sandbox's limit of watched files is reached"}
)

// eacces and eperm are the words of EACCES and EPERM: the C library's and Rust's, Python's,
// Node's, Go's.
var (
	eacces = []string{"permission denied", "eacces"}
	eperm  = []string{"operation not permitted", "eperm"}
)

// phrases are asked in this order. Those of EACCES about a path are not among them:
// see permission.
var phrases = []phrase{
	{
		says: []string{
			"could not resolve host", "couldn't resolve host", "temporary failure in name resolution", "temporary failure resolving",
			"unable to resolve host address", "name or service not known", "could not resolve hostname", "eai_again", "getaddrinfo enotfound",
			"network is unreachable", "enetunreach", "no route to host", "ehostunreach",
		},
		why: noNetwork, target: host,
	},
	{says: []string{"failed to connect to ", "couldn't connect to server"}, with: []string{" port "}, why: noNetwork, target: host},
	{
		says: eacces,
		with: []string{"connect", "/dev/tcp/", "/dev/udp/", "dial tcp", "listen tcp", "bind", "urlopen error", "new connection", " port "},
		not:  []string{"publickey"},
		why:  noTCP, target: host,
	},
	{says: []string{"read-only file system", "erofs"}, why: readOnly, target: lastPath},
	{says: []string{`the "no new privileges" flag is set`, "sudo must be owned by uid 0", "sudo: effective uid is not 0"}, why: noPrivs},
	{says: eperm, with: []string{"kill: ", "kill("}, why: noSignal},
	{says: eperm, with: []string{"setgroups", "setuid", "setgid", "seteuid", "setegid", "setresuid", "setresgid", "initgroups", "cannot set groups"}, why: noOther},
	{
		says: []string{"are you root", "must be root", "requires superuser privilege", "must be superuser", "only root can"},
		why:  noOther,
	},
	{
		says: eperm,
		with: []string{
			"mount: ", "mount(", "umount", "unshare", "nsenter", "setns", "chroot: ", "pivot_root", "ptrace", "mknod: ", "bpf(", "perf_event",
			"kernel buffer", "socktype: sock_raw", "sock_raw", "socket: ", "renice", "set priority", "ionice", "cannot set date", "clock_settime",
			"settimeofday", "sethostname", "swapon", "reboot", "init_module", "keyctl", "io_uring", "sched_set",
		},
		not: []string{"cannot remove", "cannot open", "cannot create", "cannot access"},
		why: systemCall,
	},
	{says: []string{"mount: "}, with: []string{"permission denied."}, why: systemCall},
	{says: []string{"function not implemented", "enosys", "bad system call"}, why: systemCall},
	{
		says: []string{"resource temporarily unavailable", "eagain"},
		with: []string{"fork", "clone", "thread", "spawn", "vfork", "process"},
		why:  processes,
	},
	{says: []string{"cannot fork", "can't fork", "can't start new thread", "failed to create new os thread", "unable to create native thread"}, why: processes},
	{says: []string{"cannot allocate memory", "enomem", "memoryerror"}, why: memory},
	{says: []string{"too many open files", "emfile"}, why: openFiles},
	{says: []string{"file too large", "efbig"}, why: fileSize, target: lastPath},
	{says: []string{"file size limit exceeded"}, why: fileSize}, // bash repeats the command, which may name any path
	{says: []string{"disk quota exceeded", "edquot"}, why: diskFull, target: lastPath},
	{says: []string{"no space left on device", "enospc"}, with: []string{"inotify", "watch"}, why: watches},
}

// classify reads a command's last words, the last of them first: what a command gives
// up at stands at its end. look tells of a path of the system.
func classify(text string, code int, look func(path string) (exists, readable bool)) *protocol.Denial {
	lines := strings.Split(text, "\n")
	for _, line := range slices.Backward(lines) {
		if len(line) > maxLine || strings.HasPrefix(line, "carrel: ") {
			continue
		}
		small := strings.ToLower(line)
		for _, p := range phrases {
			if has(small, p.says) && (p.with == nil || has(small, p.with)) && !has(small, p.not) {
				target := ""
				if p.target != nil {
					target = p.target(line)
				}
				return p.why.at(target, true)
			}
		}
		switch {
		case has(small, []string{"no space left on device", "enospc"}):
			return full(lastPath(line))
		case has(small, eacces):
			if d := permission(line, text, code, look); d != nil {
				return d
			}
		}
	}
	return nil
}

// full judges an ENOSPC by the place that is full.
func full(path string) *protocol.Denial {
	switch {
	case isTmp(path):
		return tmpFull.at(path, true)
	case isBelow(path, jail.WorkspaceDir):
		return diskFull.at(path, true)
	case path == "": // by a name from the working directory, or by none
		return noSpace.at("", true)
	}
	return nil
}

// exitCannotRun is a shell's status for a file that is there and cannot be executed.
const exitCannotRun = 126

// permission judges an EACCES about a path. A file of the user's own has a mode of its
// own; and a file that cannot be executed, or that its mode keeps even from being read,
// is the same everywhere.
func permission(line, text string, code int, look func(string) (exists, readable bool)) *protocol.Denial {
	at := lastPath(line)
	small := strings.ToLower(line)
	creates := has(small, []string{"cannot create", "cannot touch", "cannot remove", "cannot move", "cannot overwrite", "couldn't open", "for writing", "cannot make"})
	switch {
	case at == "":
		// Python's sockets name no address.
		if strings.HasPrefix(line, "PermissionError: [Errno 13]") && has(text, []string{".connect(", ".bind(", "socket.py"}) {
			return noTCP.at("", true)
		}
		return nil
	case Own(at), code == exitCannotRun, has(small, []string{"spawn", "exec", "bad interpreter"}), has(text, []string{"_execute_child"}):
		return nil
	case isSystem(at):
		if exists, ok := look(at); exists && !ok && !creates {
			return nil
		}
		return readOnly.at(at, true)
	case !jail.ToolMay(at, creates):
		return noPlace.at(at, true)
	}
	return nil
}

func has(text string, words []string) bool {
	for _, w := range words {
		if strings.Contains(text, w) {
			return true
		}
	}
	return false
}

var (
	quotedPath = regexp.MustCompile(`['"‘“](/[^'"’”]*)['"’”]`)
	plainPath  = regexp.MustCompile(`(?:^|[\s:=(,])(/[^\s:'",;()]+)`)
	// Hosts as curl, wget, ssh, git, apt, Node, Go and shells name them.
	hosts = regexp.MustCompile(`(?i)(?:host: |hostname |address ['‘]?|resolving ['‘]?|eai_again |enotfound |lookup |connect to (?:host )?|dial (?:tcp|udp) |` +
		`connect (?:eacces|enetunreach) |/dev/(?:tcp|udp)/|host='|//)['‘]?([A-Za-z0-9._\-\[\]]*[A-Za-z0-9\]](?:[:/][0-9]+)?)`)
)

// lastPath is the last absolute path that a line names, as it is written; "" = none.
// The program that reports stands first, at times by its own path: a shell's line is
// "/bin/bash: line 1: FILE: Permission denied", and FILE may have none.
func lastPath(line string) string {
	if reporter, rest, _ := strings.Cut(line, ": "); strings.HasPrefix(reporter, "/") && strings.Contains(rest, ": ") {
		line = rest
	}
	for _, form := range []*regexp.Regexp{quotedPath, plainPath} {
		if all := form.FindAllStringSubmatch(line, -1); all != nil {
			return path.Clean(all[len(all)-1][1])
		}
	}
	return ""
}

// host is the name or address that a line names; "" = none.
func host(line string) string {
	if found := hosts.FindStringSubmatch(line); found != nil {
		return found[1]
	}
	return ""
}
