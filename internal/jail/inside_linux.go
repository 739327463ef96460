package jail

import (
	"slices"

	"golang.org/x/sys/unix"

	"carrel/protocol"
)

// Inside is what a worker can say of its own jail: that its steps were taken,
// and what the kernel tells of this process now. missing names layers that the
// plan did without.
func Inside(missing []string) protocol.IsolationReport {
	r := protocol.IsolationReport{Mode: "strict", State: "strict", Kernel: kernelRelease()}
	add := func(l protocol.Layer) {
		l.Required = true
		if slices.Contains(missing, l.Name) {
			l.State = protocol.LayerMissing
		}
		if l.State != protocol.LayerOK {
			r.Mode, r.State = "degraded", "degraded" // strict would not have let it begin
		}
		r.Layers = append(r.Layers, l)
	}
	for _, c := range cloneFlags {
		add(protocol.Layer{Name: c.layer, State: protocol.LayerOK}) // a step that failed would have ended this process
	}
	add(protocol.Layer{Name: LayerHidepid, State: protocol.LayerOK})
	add(inForce(LayerNoNewPrivs, "", unix.PR_GET_NO_NEW_PRIVS, 1))
	add(landlockLayer(LandlockABI(), nil))
	add(inForce(LayerSeccomp, "filter", unix.PR_GET_SECCOMP, unix.SECCOMP_MODE_FILTER))
	return r
}

// inForce asks the kernel for something of this thread's, which all threads have.
func inForce(layer, detail string, what, want int) protocol.Layer {
	l := protocol.Layer{Name: layer, State: protocol.LayerOK, Detail: detail}
	if got, err := unix.PrctlRetInt(what, 0, 0, 0, 0); err != nil || got != want {
		l.State = protocol.LayerMissing // nothing holds that cannot be shown
	}
	return l
}

func kernelRelease() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}
