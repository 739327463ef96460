package jail

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// layers are those that a trial start shows. step names the step of the start
// that fails without the layer; "" is the clone.
var layers = []struct {
	name, step, meaning string
	fix                 func(error) string
}{
	{LayerUser, "", "nothing below can be had without root", fixUserNamespace},
	{LayerMount, "", "the host's files are in reach", namespace("CONFIG_NAMESPACES", "mnt")},
	{LayerPID, "", "the host's processes are in reach, and strays outlive their run", namespace("CONFIG_PID_NS", "pid")},
	{LayerNetwork, "", "the host's network is in reach: its loopback and the world by UDP, and by TCP where Landlock does not deny it", namespace("CONFIG_NET_NS", "net")},
	{LayerIPC, "", "System V IPC of the host is in reach", namespace("CONFIG_IPC_NS", "ipc")},
	{LayerUTS, "hostname", "the host's name shows", namespace("CONFIG_UTS_NS", "uts")},
	{LayerCgroupNS, "", "the host's cgroup paths show", namespace("CONFIG_CGROUPS", "cgroup")},
	{
		LayerHidepid, "proc",
		"a sandbox has no /proc at all (one that shows the worker's process to tools is not made): " +
			"what reads it, as ps does, fails there; and one sandbox can take all of the host's inotify instances",
		always("nothing may cover a part of the host's /proc: in a container run with --security-opt systempaths=unconfined"),
	},
	{LayerNoNewPrivs, "no_new_privs", "set-user-id programs would give privileges", always("use Linux 3.5 or newer")},
}

func always(fix string) func(error) string { return func(error) string { return fix } }

// namespace is the fix for a kind of namespace that the kernel, or who stands before
// it, refuses: option is the kernel's, limit its name in /proc/sys/user.
func namespace(option, limit string) func(error) string {
	return func(err error) string {
		if errors.Is(err, unix.ENOSPC) { // namespaces(7), /proc/sys/user
			return "raise the limit: sysctl -w user.max_" + limit + "_namespaces=10000"
		}
		return "use a kernel with " + option + "; in a container, its seccomp profile must allow to clone with it"
	}
}

// fixUserNamespace names the setting that is in the way, where it can be seen:
// the likeliest failure of a first start.
func fixUserNamespace(err error) string {
	switch {
	case errors.Is(err, unix.ENOSPC): // no other setting answers so
	case sysctl("kernel/apparmor_restrict_unprivileged_userns") == "1":
		return "AppArmor forbids user namespaces to ordinary users (Ubuntu 24.04's default): " +
			"sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or give carrel-worker an AppArmor profile with \"userns,\""
	case sysctl("kernel/unprivileged_userns_clone") == "0":
		return "sysctl -w kernel.unprivileged_userns_clone=1"
	}
	return namespace("CONFIG_USER_NS", "user")(err)
}

func sysctl(name string) string {
	b, err := os.ReadFile("/proc/sys/" + name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// missingLayers tries a whole start, and after a failure what it can do without.
func missingLayers(ctx context.Context, worker string) map[string]error {
	missing := make(map[string]error)
	try := func(without []string) *SetupError { return tryStart(ctx, worker, without) }
	var without []string
	for range len(layers) + 1 {
		failed := try(without)
		if failed == nil {
			return missing
		}
		names := []string{layerOf(failed.Step)}
		if failed.Step == StepClone {
			names = refusedFlags(func(w []string) bool {
				f := try(w)
				return f != nil && f.Step == StepClone
			})
		}
		goesOn := true
		for _, name := range names {
			missing[name] = failed.Err
			// It fails even so, or there is nothing that could do without.
			goesOn = goesOn && !slices.Contains(without, name) && !slices.Contains(vital, name)
		}
		if !goesOn {
			return missing
		}
		without = append(without, names...)
	}
	return missing
}

// tryStart starts a throw-away sandbox and ends it.
func tryStart(ctx context.Context, worker string, without []string) *SetupError {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err == nil {
		defer func() { _ = null.Close() }()
		var t *Trial
		t, err = NewTrial(ctx, TrialOptions{Worker: worker, UserID: "probe", Without: without, Stdio: [3]*os.File{null, null, null}})
		if err == nil {
			return closeTrial(t)
		}
	}
	setup, ok := errors.AsType[*SetupError](err)
	if !ok {
		return &SetupError{Step: "start", Err: err}
	}
	if errno, ok := errors.AsType[unix.Errno](setup.Err); ok && errno != 0 && setup.Step == StepClone {
		return &SetupError{Step: StepClone, Err: fmt.Errorf("clone: %w", errno)}
	}
	return setup
}

func closeTrial(t *Trial) *SetupError {
	if err := t.Close(); err != nil {
		return &SetupError{Step: "clean up", Err: err}
	}
	return nil
}

// layerOf names the layer that a failed step speaks of.
func layerOf(step string) string {
	switch step {
	case "landlock":
		return LayerLandlock
	case "seccomp":
		return LayerSeccomp
	case "network":
		return LayerNetwork
	}
	for _, l := range layers {
		if l.step == step {
			return l.name
		}
	}
	return LayerMount
}

// refusedFlags finds the layers whose flag makes a clone fail: the error says
// nothing of which it was. fails tells whether a clone without some layers does.
func refusedFlags(fails func(without []string) bool) []string {
	var others []string // what a sandbox can do without
	for _, c := range cloneFlags {
		if !slices.Contains(vital, c.layer) {
			others = append(others, c.layer)
		}
	}
	if !fails(others) {
		var refused []string
		for i, name := range others {
			if fails(slices.Delete(slices.Clone(others), i, i+1)) {
				refused = append(refused, name)
			}
		}
		if len(refused) > 0 {
			return refused
		}
	}
	// A start that gets past such a clone fails at its next step: its mounts are not
	// its own, or its /proc.
	for _, name := range []string{LayerMount, LayerPID} {
		if !fails(append(slices.Clone(others), name)) {
			return []string{name}
		}
	}
	return []string{LayerUser}
}

// firstOf is the missing layer for want of which no other of the clone could be
// tried; "" if there is none.
func firstOf(missing map[string]error) string {
	for _, name := range []string{LayerUser, LayerMount, LayerPID} {
		if missing[name] != nil {
			return name
		}
	}
	return ""
}
