package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"time"
)

// closeTime bounds how long [Group.Close] waits for processes that were killed.
const closeTime = 5 * time.Second

// Group bounds one sandbox. It holds no descriptor; its methods are safe for
// concurrent use.
type Group struct {
	host        host
	id          string
	hierarchies []*hierarchy
}

// New makes the group of one sandbox, empty and with its limits set. id is 1 to 64
// of A-Z a-z 0-9 _ -, begins with none of the last two, and is not "daemon". A
// limit that the host cannot hold ([Cgroups.Support]) is passed over. After an
// error nothing stays.
func (c *Cgroups) New(id string, l Limits) (_ *Group, err error) {
	if !idPattern.MatchString(id) || id == leafName {
		return nil, fmt.Errorf("make cgroup: %q is no valid id", id)
	}
	if err := l.validate(); err != nil {
		return nil, fmt.Errorf("make cgroup %s: %w", id, err)
	}
	var made []*hierarchy
	defer func() {
		if err != nil {
			err = fmt.Errorf("make cgroup %s: %w", id, err)
			for _, y := range made {
				err = errors.Join(err, y.ours.rmdir(id))
			}
		}
	}()
	for _, y := range c.hierarchies {
		if err := y.ours.mkdir(id); err != nil {
			return nil, fmt.Errorf("in %s: %w", y.ours.path(), err)
		}
		made = append(made, y)
		for _, controller := range y.controllers {
			for _, s := range l.settings(y.version, controller) {
				err := y.ours.write(path.Join(id, s.file), s.value)
				if err != nil && (!s.optional || !errors.Is(err, fs.ErrNotExist)) {
					return nil, fmt.Errorf("%s = %s: %w", s.file, s.value, err)
				}
			}
		}
	}
	return &Group{host: c.host, id: id, hierarchies: c.hierarchies}, nil
}

// Dir opens the v2 directory, for CLONE_INTO_CGROUP; nil without v2. The caller
// closes it.
func (g *Group) Dir() (*os.File, error) {
	for _, y := range g.hierarchies {
		if y.version == 2 {
			f, err := y.ours.dir(g.id)
			if err != nil {
				return nil, fmt.Errorf("open cgroup %s: %w", g.id, err)
			}
			return f, nil
		}
	}
	return nil, nil
}

// Attach puts the process into the group's v1 hierarchies. It must wait at a gate
// meanwhile: what it forks before that stays outside. Without v1 there is nothing
// to do.
func (g *Group) Attach(pid int) error {
	for _, y := range g.hierarchies {
		if y.version != 1 {
			continue
		}
		if err := y.ours.write(path.Join(g.id, "cgroup.procs"), strconv.Itoa(pid)); err != nil {
			return fmt.Errorf("attach pid %d to cgroup %s: %w", pid, path.Join(y.ours.path(), g.id), err)
		}
	}
	return nil
}

// Kill ends every process of the group; Close waits for them. It is idempotent.
// Where no cgroup.kill is to be had, nothing can fork in the group any more.
func (g *Group) Kill() error {
	var errs []error
	for _, y := range g.hierarchies {
		errs = append(errs, kill(g.host, y.ours, g.id))
	}
	return errors.Join(errs...)
}

// Close removes the group in every hierarchy once its processes are gone. It waits
// for them until ctx ends, five seconds at most, and kills none: the error names
// what stayed, and Close may be called again.
func (g *Group) Close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, closeTime)
	defer cancel()
	var errs []error
	for _, y := range g.hierarchies {
		errs = append(errs, remove(ctx, y.ours, g.id))
	}
	return errors.Join(errs...)
}

// Usage reads what the group uses now.
func (g *Group) Usage() (Usage, error) {
	var u Usage
	err := g.memory(&u)
	if err == nil {
		err = g.cpu(&u)
	}
	if err != nil {
		return Usage{}, fmt.Errorf("read usage of cgroup %s: %w", g.id, err)
	}
	return u, nil
}

func (g *Group) memory(u *Usage) error {
	y := g.with(Memory)
	if y == nil {
		return nil
	}
	files := memoryFiles[y.version]
	charged, err := y.number(g.id, files.charged)
	if err != nil {
		return err
	}
	unused, err := y.value(g.id, "memory.stat", files.unused)
	if err != nil {
		return err
	}
	// The two files are not read at one moment.
	u.MemoryBytes = max(charged-unused, 0)
	return nil
}

func (g *Group) cpu(u *Usage) error {
	// cpu.stat tells the CPU time of every v2 group, with or without controllers.
	if i := slices.IndexFunc(g.hierarchies, func(y *hierarchy) bool { return y.version == 2 }); i >= 0 {
		used, err := g.hierarchies[i].value(g.id, "cpu.stat", "usage_usec")
		u.CPU = time.Duration(used) * time.Microsecond
		return err
	}
	y := g.with(cpuacct)
	if y == nil {
		return nil
	}
	used, err := y.number(g.id, "cpuacct.usage")
	u.CPU = time.Duration(used)
	return err
}

// OOMKills is how many processes of the group the kernel has killed for want of
// memory; 0 where memory is not bounded.
func (g *Group) OOMKills() (int64, error) {
	y := g.with(Memory)
	if y == nil {
		return 0, nil
	}
	file := "memory.events"
	if y.version == 1 {
		file = "memory.oom_control"
	}
	kills, err := y.value(g.id, file, "oom_kill")
	if err != nil {
		return 0, fmt.Errorf("read out-of-memory kills of cgroup %s: %w", g.id, err)
	}
	return kills, nil
}

// with is the hierarchy that has the controller, or nil.
func (g *Group) with(controller string) *hierarchy {
	for _, y := range g.hierarchies {
		if slices.Contains(y.controllers, controller) {
			return y
		}
	}
	return nil
}

func (y *hierarchy) number(id, file string) (int64, error) {
	text, err := y.ours.read(path.Join(id, file))
	if err != nil {
		return 0, err
	}
	return parseNumber(text)
}

func (y *hierarchy) value(id, file, key string) (int64, error) {
	text, err := y.ours.read(path.Join(id, file))
	if err != nil {
		return 0, err
	}
	return parseKey(text, key)
}
