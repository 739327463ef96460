package jail

import (
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"carrel/protocol"
)

// landlockLayer says what Landlock of a version gives; err is why a sandbox could
// not be put under it. Where the kernel's is too old it is used for what it can do.
func landlockLayer(abi int, err error) protocol.Layer {
	l := protocol.Layer{Name: LayerLandlock, State: protocol.LayerOK, Detail: "ABI " + strconv.Itoa(abi), Required: true}
	switch {
	case abi == 0:
		l.State, l.Detail = protocol.LayerMissing, "not in this kernel, or not switched on"
		l.Fix = "boot Linux 6.12 or newer with landlock in CONFIG_LSM or lsm="
	case err != nil:
		l.State, l.Detail = protocol.LayerMissing, err.Error()
		l.Fix = "look for what stands before the kernel: a container's seccomp profile must allow landlock_add_rule and landlock_restrict_self"
	case abi < MinLandlockABI:
		l.State = protocol.LayerDegraded
		l.Detail += ", " + strconv.Itoa(MinLandlockABI) + " is needed"
		l.Fix = "boot Linux 6.12 or newer (Debian 12: linux-image-amd64 from bookworm-backports)"
	default:
		return l
	}
	l.Meaning = "tools can signal the worker and another run's tools, and reach abstract sockets in their network"
	if l.State == protocol.LayerMissing || slices.Contains(LandlockLacks(abi), RuleLandlockTCP) {
		l.Meaning += ", and bind and connect by TCP there"
	}
	if l.State == protocol.LayerMissing {
		l.Meaning += ", and write where only file modes forbid it (/proc/self); /home/agent is kept from them by its mode alone"
	}
	return l
}

func seccompLayer(err error) protocol.Layer {
	l := protocol.Layer{Name: LayerSeccomp, State: protocol.LayerOK, Detail: "filter", Required: true}
	if _, get := unix.PrctlRetInt(unix.PR_GET_SECCOMP, 0, 0, 0, 0); get != nil {
		err = get
	}
	if err != nil {
		l.State, l.Detail = protocol.LayerMissing, err.Error()
		l.Meaning = "all of the kernel's system calls are in reach: what it has of holes, " +
			"namespaces with capabilities of their own in them, and connections past Landlock (MPTCP, Fast Open)"
		l.Fix = "use a kernel with CONFIG_SECCOMP_FILTER"
	}
	return l
}
