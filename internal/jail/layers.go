package jail

// The layers of the jail by name, as doctor, /v1/system and [Plan.Without] use them.
const (
	LayerUser       = "user-namespace"
	LayerMount      = "mount-namespace"
	LayerPID        = "pid-namespace"
	LayerNetwork    = "network-namespace"
	LayerIPC        = "ipc-namespace"
	LayerUTS        = "uts-namespace"
	LayerCgroupNS   = "cgroup-namespace"
	LayerHidepid    = "hidepid"
	LayerNoNewPrivs = "no-new-privs"
	LayerLandlock   = "landlock"
	LayerSeccomp    = "seccomp"
	LayerUIDs       = "uid-per-user"
	LayerIDMap      = "id-mapped-mounts" // not of a sandbox: what warm workers take as root
	LayerCgroup     = "cgroup"
	LayerQuota      = "quota"
)
