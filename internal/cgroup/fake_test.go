package cgroup

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// fakeHost is a kernel of control groups in memory: groups come with their files,
// the rules that v2 holds its users to are held, and what changes is written down.
type fakeHost struct {
	self   int
	proc   map[string]string // files of /proc
	groups map[string]*fakeGroup
	denied map[string]error // by path: not writable
	fails  map[string]error // by path: a write or mkdir that goes wrong
	// lingers is how many rmdirs of a group find it busy although it was killed.
	lingers map[string]int
	log     []string
}

type fakeGroup struct {
	version   int
	top       bool
	offered   []string // v1: the mount's controllers
	subtree   []string
	files     map[string]string
	processes []int
	locked    bool
}

// newFake has one v2 mount if v2 is not nil, which offers these controllers at its
// top, and one v1 mount for each of v1. This process, pid 100, is at own.
func newFake(own string, v2, v1 []string) *fakeHost {
	k := &fakeHost{
		self:    100,
		proc:    map[string]string{"/proc/self/cgroup": "3:memory:/elsewhere\n0::" + own + "\n"},
		groups:  make(map[string]*fakeGroup),
		denied:  make(map[string]error),
		fails:   make(map[string]error),
		lingers: make(map[string]int),
	}
	mounts := "30 22 0:27 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n"
	for _, c := range v1 {
		mounts += fmt.Sprintf("31 30 0:28 / /sys/fs/cgroup/%s rw,relatime - cgroup cgroup rw,%s\n", c, c)
		k.add("/sys/fs/cgroup/"+c, &fakeGroup{version: 1, top: true, offered: strings.Split(c, ",")})
	}
	if v2 != nil {
		mounts += "40 30 0:37 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate\n"
		k.add("/sys/fs/cgroup/unified", &fakeGroup{version: 2, top: true, offered: v2, subtree: v2})
		at := "/sys/fs/cgroup/unified"
		for name := range strings.SplitSeq(strings.Trim(own, "/"), "/") {
			if name != "" {
				at += "/" + name
				k.add(at, &fakeGroup{version: 2, offered: v2})
			}
		}
		k.put(k.self, at)
	}
	k.proc["/proc/self/mountinfo"] = mounts
	return k
}

func (k *fakeHost) add(at string, g *fakeGroup) {
	g.files = map[string]string{}
	if g.version == 2 {
		g.files["cgroup.subtree_control"] = ""
		if !g.top {
			g.files["cgroup.type"] = "domain\n"
			g.files["cgroup.kill"] = ""
		}
	}
	g.offer()
	k.groups[at] = g
}

// offer gives a group the files of the controllers offered to it.
func (g *fakeGroup) offer() {
	if g.version == 2 {
		g.files["cgroup.controllers"] = strings.Join(g.offered, " ") + "\n"
	}
	for _, c := range g.offered {
		switch {
		case c == Memory && g.version == 2 && !g.top:
			for _, f := range []string{"memory.max", "memory.oom.group", "memory.swap.max"} {
				g.files[f] = ""
			}
		case c == Memory && g.version == 1:
			g.files["memory.limit_in_bytes"] = ""
		case c == PIDs && !g.top:
			g.files["pids.max"] = "max"
		case c == CPU && g.version == 2 && !g.top:
			g.files["cpu.max"] = ""
		case c == CPU && g.version == 1:
			g.files["cpu.cfs_period_us"], g.files["cpu.cfs_quota_us"] = "", ""
		}
	}
}

// put brings a process into a group, out of every other one of that version.
func (k *fakeHost) put(pid int, at string) {
	for _, g := range k.groups {
		if g.version == 2 {
			g.processes = slices.DeleteFunc(g.processes, func(p int) bool { return p == pid })
		}
	}
	k.groups[at].processes = append(k.groups[at].processes, pid)
}

func (k *fakeHost) pid() int { return k.self }

func (k *fakeHost) read(name string) (string, error) {
	text, ok := k.proc[name]
	if !ok {
		return "", &fs.PathError{Op: "open", Path: name, Err: syscall.ENOENT}
	}
	return text, nil
}

func (k *fakeHost) writable(name string) error { return k.denied[path.Clean(name)] }

func (k *fakeHost) open(dir string) (tree, error) {
	if _, ok := k.groups[dir]; !ok {
		return nil, &fs.PathError{Op: "open", Path: dir, Err: syscall.ENOENT}
	}
	return &fakeTree{k: k, at: dir}, nil
}

func (k *fakeHost) pin(pid int) (pinned, error) { return fakePin{k, pid}, nil }

type fakePin struct {
	k   *fakeHost
	pid int
}

func (p fakePin) kill() error {
	p.k.log = append(p.k.log, fmt.Sprintf("SIGKILL %d", p.pid))
	for _, g := range p.k.groups {
		g.processes = slices.DeleteFunc(g.processes, func(q int) bool { return q == p.pid })
	}
	return nil
}

func (fakePin) Close() error { return nil }

type fakeTree struct {
	k      *fakeHost
	at     string
	holder bool
}

func (t *fakeTree) path() string { return t.at }

func (t *fakeTree) group(name string) (*fakeGroup, error) {
	g, ok := t.k.groups[path.Join(t.at, name)]
	if !ok {
		return nil, &fs.PathError{Op: "openat", Path: path.Join(t.at, name), Err: syscall.ENOENT}
	}
	return g, nil
}

func (t *fakeTree) read(name string) (string, error) {
	g, err := t.group(path.Dir(name))
	if err != nil {
		return "", err
	}
	switch file := path.Base(name); file {
	case "cgroup.procs":
		text := ""
		for _, pid := range g.processes {
			text += strconv.Itoa(pid) + "\n"
		}
		return text, nil
	case "cgroup.subtree_control":
		return strings.Join(g.subtree, " ") + "\n", nil
	default:
		if text, ok := g.files[file]; ok {
			return text, nil
		}
		return "", &fs.PathError{Op: "openat", Path: name, Err: syscall.ENOENT}
	}
}

func (t *fakeTree) write(name, value string) error {
	at := path.Join(t.at, name)
	g, err := t.group(path.Dir(name))
	if err != nil {
		return err
	}
	file := path.Base(name)
	if _, ok := g.files[file]; !ok && file != "cgroup.procs" {
		return &fs.PathError{Op: "openat", Path: at, Err: syscall.ENOENT}
	}
	t.k.log = append(t.k.log, at+" = "+value)
	if err := t.k.fails[at]; err != nil {
		return err
	}
	switch file {
	case "cgroup.procs":
		pid, err := strconv.Atoi(value)
		if err != nil {
			return syscall.EINVAL
		}
		if g.version == 2 && !g.top && len(g.subtree) > 0 {
			return syscall.EBUSY
		}
		if g.version == 2 {
			t.k.put(pid, path.Dir(at))
		} else {
			g.processes = append(g.processes, pid)
		}
	case "cgroup.subtree_control":
		return t.k.control(path.Dir(at), value)
	case "cgroup.kill":
		g.processes = nil
	default:
		g.files[file] = value
	}
	return nil
}

// control holds v2 to its rules for cgroup.subtree_control.
func (k *fakeHost) control(at, value string) error {
	g := k.groups[at]
	for word := range strings.FieldsSeq(value) {
		name := word[1:]
		if word[0] == '-' {
			for other, child := range k.groups {
				if path.Dir(other) == at && slices.Contains(child.subtree, name) {
					return syscall.EBUSY
				}
			}
			g.subtree = slices.DeleteFunc(g.subtree, func(c string) bool { return c == name })
			continue
		}
		if !slices.Contains(g.offered, name) {
			return syscall.ENOENT
		}
		if !g.top && len(g.processes) > 0 {
			return syscall.EBUSY
		}
		g.subtree = append(g.subtree, name)
		for other, child := range k.groups {
			if path.Dir(other) == at && !slices.Contains(child.offered, name) {
				child.offered = append(child.offered, name)
				child.offer()
			}
		}
	}
	return nil
}

func (t *fakeTree) mkdir(name string) error {
	at := path.Join(t.at, name)
	parent, err := t.group(path.Dir(name))
	if err != nil {
		return err
	}
	if _, ok := t.k.groups[at]; ok {
		return &fs.PathError{Op: "mkdirat", Path: at, Err: syscall.EEXIST}
	}
	if err := t.k.fails[at]; err != nil {
		return err
	}
	g := &fakeGroup{version: parent.version, offered: parent.offered}
	if g.version == 2 {
		g.offered = slices.Clone(parent.subtree)
	}
	t.k.add(at, g)
	t.k.log = append(t.k.log, "mkdir "+at)
	return nil
}

func (t *fakeTree) rmdir(name string) error {
	at := path.Join(t.at, name)
	g, err := t.group(name)
	if err != nil {
		return err
	}
	for other := range t.k.groups {
		if path.Dir(other) == at {
			return &fs.PathError{Op: "unlinkat", Path: at, Err: syscall.EBUSY}
		}
	}
	if len(g.processes) > 0 || t.k.lingers[at] > 0 {
		t.k.lingers[at]--
		return &fs.PathError{Op: "unlinkat", Path: at, Err: syscall.EBUSY}
	}
	delete(t.k.groups, at)
	t.k.log = append(t.k.log, "rmdir "+at)
	return nil
}

func (t *fakeTree) groups(name string) ([]string, error) {
	if _, err := t.group(name); err != nil {
		return nil, err
	}
	var names []string
	for at := range t.k.groups {
		if path.Dir(at) == path.Join(t.at, name) {
			names = append(names, path.Base(at))
		}
	}
	slices.Sort(names)
	return names, nil
}

func (t *fakeTree) open(name string) (tree, error) {
	if _, err := t.group(name); err != nil {
		return nil, err
	}
	return &fakeTree{k: t.k, at: path.Join(t.at, name)}, nil
}

func (t *fakeTree) dir(string) (*os.File, error) { return os.Open(os.DevNull) }

func (t *fakeTree) lock() error {
	g, err := t.group("")
	if err != nil {
		return err
	}
	if g.locked {
		return syscall.EWOULDBLOCK
	}
	g.locked, t.holder = true, true
	return nil
}

func (t *fakeTree) Close() error {
	if g, err := t.group(""); err == nil && t.holder {
		g.locked = false
	}
	return nil
}
