package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"syscall"
)

// place is a group in which our own group can be made.
type place struct {
	version     int
	dir         string   // host path
	controllers []string // those of ours that it gives
	leaf        bool     // this process has to move to a leaf first
}

// plan is what [Open] will do on this host.
type plan struct {
	places []place
	// passed are usable places that are not used: an earlier start may have used them.
	passed  []place
	support Support
}

// Detect says what this host gives to this process. It changes nothing.
func Detect() Support { return survey(machine()).support }

func survey(h host) plan {
	text, err := h.read("/proc/self/mountinfo")
	if err != nil {
		return plan{support: support(nil, []refusal{{reason: err.Error(), fix: "mount /proc"}})}
	}
	mounts := parseMounts(text)
	if len(mounts) == 0 {
		return plan{support: support(nil, []refusal{{
			reason: "no cgroup file system is mounted",
			fix:    "mount cgroup2 at /sys/fs/cgroup",
		}})}
	}
	var p plan
	refused := p.unified(h, mounts)
	refused = append(refused, p.legacy(h, mounts)...)
	p.support = support(p.places, refused)
	return p
}

// unified looks for the v2 group to divide.
func (p *plan) unified(h host, mounts []mount) []refusal {
	i := slices.IndexFunc(mounts, func(m mount) bool { return m.version == 2 })
	if i < 0 {
		return nil
	}
	var refused []refusal
	// A group that offers no controllers bounds the daemon in nothing, so the top
	// is as good, and a later start finds it.
	ownDir, hasOwn := ownGroup(h, mounts[i])
	if hasOwn {
		own, r := v2Place(h, ownDir)
		if r == nil {
			p.places = append(p.places, own)
		} else {
			refused = append(refused, *r)
		}
	}
	if !hasOwn || ownDir != mounts[i].point {
		top, r := v2Place(h, mounts[i].point)
		switch {
		case r != nil && !hasOwn:
			refused = append(refused, *r)
		case r != nil: // why the own group cannot be had says more
		case len(p.places) == 0:
			p.places, refused = []place{top}, nil
		case len(p.places[0].controllers) == 0 || len(top.controllers) > len(p.places[0].controllers):
			p.passed, p.places = p.places, []place{top}
		default:
			p.passed = []place{top}
		}
	}
	return refused
}

// ownGroup is where this process's v2 group stands beneath m.
func ownGroup(h host, m mount) (dir string, ok bool) {
	text, err := h.read("/proc/self/cgroup")
	if err != nil {
		return "", false
	}
	group, ok := parseOwn(text)
	if !ok {
		return "", false
	}
	// This process may have moved to its leaf already.
	if ours, leaf := path.Split(group); leaf == leafName && validName(path.Base(ours)) {
		group = path.Dir(path.Dir(group))
	}
	below, ok := strings.CutPrefix(group, strings.TrimSuffix(m.root, "/"))
	if !ok || (below != "" && below[0] != '/') {
		return "", false
	}
	return path.Join(m.point, below), true
}

// v2Place says what the v2 group dir gives, or why it gives nothing.
func v2Place(h host, dir string) (place, *refusal) {
	p := place{version: 2, dir: dir}
	t, err := h.open(dir)
	if err != nil {
		return p, &refusal{reason: "v2: " + err.Error()}
	}
	defer func() { _ = t.Close() }()
	offered, err := t.read("cgroup.controllers")
	if err != nil {
		return p, &refusal{reason: "v2: " + err.Error()}
	}
	for _, c := range wanted() {
		if slices.Contains(strings.Fields(offered), c) {
			p.controllers = append(p.controllers, c)
		}
	}
	// Only the root of a hierarchy has no type (cgroup-v2.rst, "Core Interface
	// Files"), and only it may hold processes besides divided children.
	kind, err := t.read("cgroup.type")
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return p, &refusal{reason: "v2: " + err.Error()}
	case strings.TrimSpace(kind) != "domain":
		return p, &refusal{reason: fmt.Sprintf("v2: %s is a %s group", dir, strings.TrimSpace(kind)), fix: fixDelegate}
	default:
		p.leaf = len(p.controllers) > 0
	}
	needs := []string{"", "cgroup.subtree_control"}
	if p.leaf {
		needs = append(needs, "cgroup.procs")
	}
	fix := fixDelegate
	if len(p.controllers) == 0 {
		fix = "" // there would be nothing to delegate
	}
	for _, name := range needs {
		if err := h.writable(path.Join(dir, name)); err != nil {
			return p, denied("v2", path.Join(dir, name), err, fix)
		}
	}
	if p.leaf {
		return p, foreign(h, t)
	}
	return p, nil
}

// foreign refuses a group that other processes live in: they would have to move
// out of it, and they are not ours.
func foreign(h host, t tree) *refusal {
	text, err := t.read("cgroup.procs")
	if err != nil {
		return &refusal{reason: "v2: " + err.Error()}
	}
	pids, err := parsePIDs(text)
	if err != nil {
		return &refusal{reason: "v2: " + err.Error()}
	}
	for _, pid := range pids {
		if !descends(h, pid) {
			return &refusal{
				reason: fmt.Sprintf("v2: %s also holds processes that are not carrel's (pid %d)", t.path(), pid),
				fix:    fixDelegate,
			}
		}
	}
	return nil
}

// descends reports whether pid is this process, a child of it, a child's child and
// so on, or has ended.
func descends(h host, pid int) bool {
	const generations = 64 // bounds a walk while processes come and go
	for range generations {
		if pid == h.pid() {
			return true
		}
		if pid <= 1 {
			return false
		}
		text, err := h.read(fmt.Sprintf("/proc/%d/stat", pid))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			return true
		}
		if err != nil {
			return false
		}
		if pid, err = parseParent(text); err != nil {
			return false
		}
	}
	return false
}

// legacy takes from v1 what v2 does not give.
func (p *plan) legacy(h host, mounts []mount) []refusal {
	var refused []refusal
	needed := wanted()
	if len(p.places) == 0 {
		needed = append(needed, cpuacct) // else v2 tells the CPU time
	}
	for _, c := range needed {
		if slices.ContainsFunc(p.places, func(q place) bool { return slices.Contains(q.controllers, c) }) {
			continue
		}
		i := slices.IndexFunc(mounts, func(m mount) bool { return m.version == 1 && slices.Contains(m.controllers, c) })
		if i < 0 {
			continue
		}
		dir := mounts[i].point
		// Controllers that are mounted together make one place.
		if j := slices.IndexFunc(p.places, func(q place) bool { return q.dir == dir }); j >= 0 {
			p.places[j].controllers = append(p.places[j].controllers, c)
			continue
		}
		if err := h.writable(dir); err != nil {
			const fix = "run carrel as root (v1 cannot be delegated), or boot with systemd.unified_cgroup_hierarchy=1 and delegate a group"
			if r := *denied("v1", path.Dir(dir), err, fix); !slices.Contains(refused, r) {
				refused = append(refused, r)
			}
			continue
		}
		p.places = append(p.places, place{version: 1, dir: dir, controllers: []string{c}})
	}
	return refused
}

// denied words why dir cannot be written to.
func denied(version, dir string, err error, fix string) *refusal {
	switch {
	case errors.Is(err, syscall.EROFS):
		return &refusal{
			reason: version + ": " + dir + " is mounted read-only",
			fix:    "mount the cgroup file system read-write here (in a container: a cgroup namespace of its own, mounted rw)",
		}
	case errors.Is(err, fs.ErrPermission):
		return &refusal{reason: version + ": " + dir + " is not writable for this user", fix: fix}
	default:
		return &refusal{reason: version + ": " + err.Error(), fix: fix}
	}
}
