package jail

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"carrel/protocol"
)

// ProbeOptions says what to probe and what is asked for.
type ProbeOptions struct {
	Worker string // the worker's program
	// Mode is "strict" or "degraded": what the operator's configuration says.
	Mode string
	// BaseDir is where users' directories are or will be.
	BaseDir string
	// Outside are the layers that stand outside of the sandbox and that this
	// package knows nothing of (cgroup, quota), as their own rooms report them.
	Outside []protocol.Layer
}

// Probe finds out what isolation this host really gives, by starting a sandbox
// with everything in it and, if that fails, finding the layers that cannot be
// had. Its report's State is "strict" if every required layer holds.
func Probe(ctx context.Context, o ProbeOptions) protocol.IsolationReport {
	r := protocol.IsolationReport{Mode: o.Mode, Kernel: kernelRelease(), Root: os.Geteuid() == 0}
	missing := missingLayers(ctx, o.Worker)
	for _, l := range layers {
		line := protocol.Layer{Name: l.name, State: protocol.LayerOK, Required: true}
		if err, ok := missing[l.name]; ok {
			line.State, line.Detail, line.Meaning, line.Fix = protocol.LayerMissing, err.Error(), l.meaning, l.fix(err)
		}
		r.Layers = append(r.Layers, line)
	}
	r.Layers = append(r.Layers, landlockLayer(missing), seccompLayer(missing), uidLayer())
	if r.Root {
		r.Layers = append(r.Layers, idMapLayer(ctx, o.Worker, o.BaseDir))
	}
	r.Layers = append(r.Layers, o.Outside...)
	r.State = "strict"
	for _, l := range r.Layers {
		if l.Required && l.State != protocol.LayerOK {
			r.State = "degraded"
		}
	}
	return r
}

// Unmet names the required layers that do not hold, each with what to do, in one
// line; it is empty if all hold.
func Unmet(r protocol.IsolationReport) string {
	var lines []string
	for _, l := range r.Layers {
		if l.Required && l.State != protocol.LayerOK {
			lines = append(lines, fmt.Sprintf("%s: %s (%s)", l.Name, l.Detail, l.Fix))
		}
	}
	return strings.Join(lines, "; ")
}

// Without is what a plan must do without on the host of this report. Layers that
// nothing can stand in for are not among it: see [Vital].
func Without(r protocol.IsolationReport) []string {
	var names []string
	for _, l := range r.Layers {
		weak := l.State == protocol.LayerMissing
		if weak && l.Name != LayerCgroup && l.Name != LayerQuota && !slices.Contains(vital, l.Name) {
			names = append(names, l.Name)
		}
	}
	return names
}

// vital are the layers without which there is no sandbox at all: even
// SANDBOX_ISOLATION=degraded does not start then.
var vital = []string{LayerUser, LayerMount, LayerPID, LayerNoNewPrivs}

// Vital reports the vital layers this host lacks, in one line.
func Vital(r protocol.IsolationReport) string {
	var lines []string
	for _, l := range r.Layers {
		if slices.Contains(vital, l.Name) && l.State == protocol.LayerMissing {
			lines = append(lines, fmt.Sprintf("%s: %s (%s)", l.Name, l.Detail, l.Fix))
		}
	}
	return strings.Join(lines, "; ")
}

// layers are those that a trial start shows. step names the step of the start
// that fails without the layer; "" is the clone.
var layers = []struct {
	name, step, meaning string
	fix                 func(error) string
}{
	{LayerUser, "", "nothing below can be had without root", fixUserNamespace},
	{LayerMount, "", "the host's files are in reach", always("use a kernel with CONFIG_NAMESPACES")},
	{LayerPID, "", "the host's processes are in reach, and strays outlive their run", always("use a kernel with CONFIG_PID_NS")},
	{LayerNetwork, "", "the host's network is in reach", always("use a kernel with CONFIG_NET_NS; in a container, allow it")},
	{LayerIPC, "", "System V IPC of the host is in reach", always("use a kernel with CONFIG_IPC_NS")},
	{LayerUTS, "", "the host's name shows", always("use a kernel with CONFIG_UTS_NS")},
	{LayerCgroupNS, "", "the host's cgroup paths show", always("use a kernel with CONFIG_CGROUPS")},
	{LayerHidepid, "proc", "tools can see the worker's process", always(
		"the host's /proc must not be masked: in a container run with --security-opt systempaths=unconfined")},
	{LayerNoNewPrivs, "no_new_privs", "set-user-id programs would give privileges", always("use Linux 3.5 or newer")},
}

func always(fix string) func(error) string { return func(error) string { return fix } }

// fixUserNamespace names the setting that is in the way, where it can be seen:
// the likeliest failure of a first start.
func fixUserNamespace(error) string {
	switch {
	case sysctl("kernel/apparmor_restrict_unprivileged_userns") == "1":
		return "AppArmor forbids user namespaces to ordinary users (Ubuntu 24.04's default): " +
			"sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or give carrel-worker an AppArmor profile with \"userns,\""
	case sysctl("kernel/unprivileged_userns_clone") == "0":
		return "sysctl -w kernel.unprivileged_userns_clone=1"
	case sysctl("user/max_user_namespaces") == "0":
		return "sysctl -w user.max_user_namespaces=10000"
	}
	return "in a container, its seccomp profile must allow clone with CLONE_NEWUSER; else use a kernel with CONFIG_USER_NS"
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
	try := func(without []string) *SetupError {
		null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
		if err == nil {
			defer func() { _ = null.Close() }()
			var t *Trial
			t, err = NewTrial(ctx, TrialOptions{Worker: worker, UserID: "probe", Without: without, Stdio: [3]*os.File{null, null, null}})
			if err == nil {
				return closeTrial(t)
			}
		}
		if setup, ok := errors.AsType[*SetupError](err); ok {
			return setup
		}
		return &SetupError{Step: "start", Err: err}
	}
	var without []string
	for range len(layers) + 1 {
		failed := try(without)
		if failed == nil {
			return missing
		}
		name := layerOf(failed, without, func(w []string) bool { return try(w) == nil })
		missing[name] = failed.Err
		if slices.Contains(without, name) || slices.Contains(vital, name) {
			// It fails even so: nothing more can be told apart from here.
			return missing
		}
		without = append(without, name)
	}
	return missing
}

func closeTrial(t *Trial) *SetupError {
	if err := t.Close(); err != nil {
		return &SetupError{Step: "clean up", Err: err}
	}
	return nil
}

// layerOf names the layer that a failed step speaks of. A clone that failed says
// nothing of which flag it was: each is left out in turn.
func layerOf(failed *SetupError, without []string, works func([]string) bool) string {
	switch failed.Step {
	case StepClone:
		for _, c := range cloneFlags[1:] {
			if works(append(slices.Clone(without), c.layer)) {
				return c.layer
			}
		}
		return LayerUser
	case "landlock":
		return LayerLandlock
	case "seccomp":
		return LayerSeccomp
	case "network":
		return LayerNetwork
	}
	for _, l := range layers {
		if l.step == failed.Step {
			return l.name
		}
	}
	return LayerMount
}

func landlockLayer(missing map[string]error) protocol.Layer {
	abi := LandlockABI()
	l := protocol.Layer{Name: LayerLandlock, State: protocol.LayerOK, Detail: "ABI " + strconv.Itoa(abi), Required: true}
	switch err := missing[LayerLandlock]; {
	case abi == 0:
		l.State, l.Detail = protocol.LayerMissing, "not in this kernel"
		l.Meaning = "tools can reach the agent's state and signal the worker"
		l.Fix = "boot a kernel of Linux 6.12 or newer with landlock in CONFIG_LSM or lsm="
	case err != nil:
		l.State, l.Detail = protocol.LayerMissing, err.Error()
	case abi < MinLandlockABI:
		l.State = protocol.LayerDegraded
		l.Detail += ", " + strconv.Itoa(MinLandlockABI) + " is needed"
		l.Meaning = "tools can signal the worker, and reach abstract sockets"
		l.Fix = "boot Linux 6.12 or newer (Debian 12: linux-image-amd64 from bookworm-backports)"
	}
	return l
}

func seccompLayer(missing map[string]error) protocol.Layer {
	l := protocol.Layer{Name: LayerSeccomp, State: protocol.LayerOK, Detail: "filter", Required: true}
	if _, err := unix.PrctlRetInt(unix.PR_GET_SECCOMP, 0, 0, 0, 0); err != nil {
		missing[LayerSeccomp] = err
	}
	if err := missing[LayerSeccomp]; err != nil {
		l.State, l.Detail = protocol.LayerMissing, err.Error()
		l.Meaning = "all of the kernel's system calls are in reach"
		l.Fix = "use a kernel with CONFIG_SECCOMP_FILTER"
	}
	return l
}

func uidLayer() protocol.Layer {
	l := protocol.Layer{Name: LayerUIDs, State: protocol.LayerOK, Detail: "one host uid a user"}
	if os.Geteuid() != 0 {
		l.State, l.Detail = protocol.LayerDegraded, "all sandboxes have the daemon's own uid on the host"
		l.Meaning = "namespaces and Landlock alone keep users' files apart"
		l.Fix = "run carrel as root (it gives up what it does not need in every sandbox)"
	}
	return l
}

// idMapLayer tries whether the file system of the users' directories can
// translate owners, on the directory itself or what there is of its path. Nothing
// is written to it.
func idMapLayer(ctx context.Context, worker, baseDir string) protocol.Layer {
	l := protocol.Layer{Name: LayerIDMap, State: protocol.LayerOK, Detail: "warm workers take any user's files"}
	if err := tryIDMap(ctx, worker, existing(baseDir)); err != nil {
		l.State, l.Detail = protocol.LayerDegraded, err.Error()
		l.Meaning = "no worker is kept warm: the first message of a user waits for one to start"
		l.Fix = "put SANDBOX_BASE_DIR on ext4, xfs or btrfs"
	}
	return l
}

func tryIDMap(ctx context.Context, worker, dir string) error {
	s, err := StartSpawner(worker, io.Discard)
	if err != nil {
		return err
	}
	defer s.Close()
	owners, err := s.NewIDMap(ctx)
	if err != nil {
		return err
	}
	defer owners.Close()
	if err := owners.Set(TrialUID, trialSlotUID); err != nil {
		return err
	}
	mounts, err := TakeMounts("", owners, dir)
	if err != nil {
		return err
	}
	mounts.Close()
	return nil
}

// existing is dir, or the nearest directory above it that there is.
func existing(dir string) string {
	dir, err := filepath.Abs(dir)
	for err == nil && dir != "/" {
		if _, err := os.Stat(dir); err == nil {
			break
		}
		dir = filepath.Dir(dir)
	}
	return dir
}
