package jail

import (
	"bufio"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"carrel/protocol"
)

// Inside is what a worker can say of its own jail: that its steps were taken,
// and what the kernel tells of this process now. missing names layers that the
// plan did without.
func Inside(missing []string) protocol.IsolationReport {
	r := protocol.IsolationReport{Mode: "strict", State: "strict", Kernel: kernelRelease()}
	if len(missing) > 0 {
		r.Mode, r.State = "degraded", "degraded"
	}
	status := processStatus()
	add := func(name, detail string, holds bool) {
		state := protocol.LayerOK
		if !holds || slices.Contains(missing, name) {
			state, r.State = protocol.LayerMissing, "degraded"
		}
		r.Layers = append(r.Layers, protocol.Layer{Name: name, State: state, Detail: detail, Required: true})
	}
	for _, c := range cloneFlags {
		add(c.layer, "", true) // a step that failed would have ended this process
	}
	add(LayerHidepid, "", true)
	add(LayerNoNewPrivs, "", status["NoNewPrivs"] == "1")
	add(LayerLandlock, "ABI "+strconv.Itoa(LandlockABI()), true)
	add(LayerSeccomp, "filter", status["Seccomp"] == "2")
	return r
}

// processStatus reads /proc/self/status (proc_pid_status(5)).
func processStatus() map[string]string {
	fields := make(map[string]string)
	f, err := os.Open("/proc/self/status")
	if err != nil {
		return fields // nothing holds that cannot be shown
	}
	defer func() { _ = f.Close() }()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), ":")
		fields[name] = strings.TrimSpace(value)
	}
	return fields
}

func kernelRelease() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}
