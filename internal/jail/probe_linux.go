package jail

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

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
	first := firstOf(missing)
	for _, l := range layers {
		line := protocol.Layer{Name: l.name, State: protocol.LayerOK, Required: true}
		switch err, ok := missing[l.name]; {
		case ok:
			line.State, line.Detail, line.Meaning, line.Fix = protocol.LayerMissing, err.Error(), l.meaning, l.fix(err)
		case first != "":
			line.State, line.Detail, line.Meaning, line.Fix = protocol.LayerDegraded, "not tried", l.meaning, "get "+first+" first"
		}
		r.Layers = append(r.Layers, line)
	}
	r.Layers = append(r.Layers, landlockLayer(LandlockABI(), missing[LayerLandlock]), seccompLayer(missing[LayerSeccomp]), uidLayer())
	if r.Root && first == "" {
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
