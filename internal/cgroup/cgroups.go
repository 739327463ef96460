package cgroup

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// leafName is the group this process moves to where it has to. No sandbox's group
// has this name.
const leafName = "daemon"

// sweepTime bounds how long dying processes are waited for, in [Open] and in
// [Cgroups.Close]: a killed process needs milliseconds, one that sits in a dead
// disk does not end at all.
const sweepTime = 10 * time.Second

var (
	namePattern = regexp.MustCompile(`^carrel-[0-9a-f]{8}$`)
	idPattern   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$`)
)

func validName(name string) bool { return namePattern.MatchString(name) }

// Name is the name of our own group: one for each base directory, so that two
// daemons of one machine do not meet. baseDir is absolute.
func Name(baseDir string) string {
	sum := sha256.Sum256([]byte(filepath.Clean(baseDir)))
	return "carrel-" + hex.EncodeToString(sum[:4])
}

// Cgroups is our own group in every hierarchy that is used. Its methods are safe
// for concurrent use, but for Close, which comes last. It starts no goroutine.
type Cgroups struct {
	host        host
	name        string
	support     Support
	hierarchies []*hierarchy

	mu     sync.Mutex
	closed bool
}

// hierarchy is one place in use.
type hierarchy struct {
	place
	above tree // the group ours stands in
	ours  tree
}

// Open makes our own group and ends what a killed predecessor left in it. name is
// from [Name]. Where [Detect] says None it is an error. It waits for dying
// processes until ctx ends, ten seconds at most.
//
// In a delegated group this process and its children move to a leaf; whatever is
// started later is born there.
func Open(ctx context.Context, name string) (*Cgroups, error) { return open(ctx, machine(), name) }

func open(ctx context.Context, h host, name string) (_ *Cgroups, err error) {
	if !validName(name) {
		return nil, fmt.Errorf("open cgroups: %q is no name of Name", name)
	}
	p := survey(h)
	if p.support.State == None {
		return nil, fmt.Errorf("open cgroups: %s", p.support.Detail)
	}
	c := &Cgroups{host: h, name: name, support: p.support}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("open cgroups: %w", err), c.Close(context.WithoutCancel(ctx)))
		}
	}()
	for _, at := range p.passed {
		if err := c.sweepPassed(ctx, at); err != nil {
			return nil, err
		}
	}
	for _, at := range p.places {
		y, err := c.enter(at)
		if err != nil {
			return nil, err
		}
		// From here on Close undoes it.
		c.hierarchies = append(c.hierarchies, y)
	}
	if err := c.sweep(ctx, c.hierarchies); err != nil {
		return nil, err
	}
	for _, y := range c.hierarchies {
		if err := c.divide(y); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// Support is what [Detect] said when c was opened.
func (c *Cgroups) Support() Support { return c.support }

// enter makes our group at a place, or finds it there, and takes its lock.
func (c *Cgroups) enter(at place) (y *hierarchy, err error) {
	y = &hierarchy{place: at}
	defer func() {
		if err != nil {
			y.close()
		}
	}()
	if y.above, err = c.host.open(at.dir); err != nil {
		return nil, err
	}
	if err := y.above.mkdir(c.name); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("in %s: %w", at.dir, err)
	}
	if y.ours, err = y.above.open(c.name); err != nil {
		return nil, fmt.Errorf("in %s: %w", at.dir, err)
	}
	return y, y.ours.lock()
}

func (y *hierarchy) close() {
	for _, t := range []tree{y.ours, y.above} {
		if t != nil {
			_ = t.Close()
		}
	}
}

// sweepPassed removes what a predecessor left at a place that is not used now.
func (c *Cgroups) sweepPassed(ctx context.Context, at place) error {
	above, err := c.host.open(at.dir)
	if err != nil {
		return err
	}
	defer func() { _ = above.Close() }()
	ours, err := above.open(c.name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("in %s: %w", at.dir, err)
	}
	defer func() { _ = ours.Close() }()
	if err := ours.lock(); err != nil {
		return err
	}
	if err := c.sweep(ctx, []*hierarchy{{place: at, above: above, ours: ours}}); err != nil {
		return err
	}
	return remove(ctx, above, c.name)
}

// divide enables the controllers for the groups of sandboxes (v2).
func (c *Cgroups) divide(y *hierarchy) error {
	if y.version != 2 || len(y.controllers) == 0 {
		return nil
	}
	if y.leaf {
		if err := y.ours.mkdir(leafName); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("in %s: %w", y.ours.path(), err)
		}
		if err := c.move(y.above, "", path.Join(c.name, leafName)); err != nil {
			return err
		}
	}
	for _, t := range []tree{y.above, y.ours} {
		if err := control(t, "+", y.controllers); err != nil {
			return err
		}
	}
	return nil
}

// control enables ("+") or disables ("-") controllers for the groups beneath t, as
// far as they are not already.
func control(t tree, sign string, controllers []string) error {
	text, err := t.read("cgroup.subtree_control")
	if err != nil {
		return err
	}
	enabled := strings.Fields(text)
	change := slices.DeleteFunc(slices.Clone(controllers), func(controller string) bool {
		return slices.Contains(enabled, controller) == (sign == "+")
	})
	if len(change) == 0 {
		return nil
	}
	value := sign + strings.Join(change, " "+sign)
	if err := t.write("cgroup.subtree_control", value); err != nil {
		return fmt.Errorf("%s for the groups of %s: %w", value, t.path(), err)
	}
	return nil
}

// move brings this process and its children from one group to another, both in t.
// A child forked meanwhile needs another round.
func (c *Cgroups) move(t tree, from, to string) error {
	const rounds = 16
	for range rounds {
		pids, err := processes(t, from)
		if err != nil {
			return err
		}
		if len(pids) == 0 {
			return nil
		}
		for _, pid := range pids {
			if !descends(c.host, pid) {
				return fmt.Errorf("%s holds a process that is not ours, pid %d", path.Join(t.path(), from), pid)
			}
			err := t.write(path.Join(to, "cgroup.procs"), strconv.Itoa(pid))
			if err != nil && !ended(err) {
				return fmt.Errorf("move pid %d to %s: %w", pid, path.Join(t.path(), to), err)
			}
		}
	}
	return fmt.Errorf("%s: new processes came as fast as they were moved", path.Join(t.path(), from))
}

// Close ends every process that is left in a sandbox's group, brings this process
// from its leaf, if it has one, to the group above ours, and removes our group. It waits for dying processes until
// ctx ends, ten seconds at most; the error names what stayed. A second Close does
// nothing. Controllers enabled at the top of a hierarchy stay so: others may have
// come to need them.
func (c *Cgroups) Close(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	c.closed = true
	errs := []error{c.sweep(ctx, c.hierarchies)}
	for _, y := range slices.Backward(c.hierarchies) {
		err := c.unite(y)
		if err == nil {
			err = remove(ctx, y.above, c.name)
		}
		errs = append(errs, err)
		y.close()
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close cgroups: %w", err)
	}
	return nil
}

// unite takes divide back, as far as it came.
func (c *Cgroups) unite(y *hierarchy) error {
	if !y.leaf {
		return nil
	}
	pids, err := processes(y.ours, leafName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	// All of them, whoever enabled them above: as long as this process lived there
	// none can have been, so it was us, or a predecessor whose leaf we started in.
	for _, t := range []tree{y.ours, y.above} {
		if err := control(t, "-", y.controllers); err != nil {
			return err
		}
	}
	if len(pids) > 0 {
		if err := c.move(y.above, path.Join(c.name, leafName), ""); err != nil {
			return err
		}
	}
	return y.ours.rmdir(leafName)
}
