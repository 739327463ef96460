package attack

import "carrel/internal/jail"

// What stops a row, besides the layers of package jail.
const (
	// capabilities: a sandbox has none.
	capabilities = "capabilities"
	// otherUID: what is root's or another user's is not the sandbox's. It is so for
	// every daemon, which as an ordinary user has but one uid for all sandboxes.
	otherUID    = "uid"
	rlimits     = "rlimits"
	dumpable    = "dumpable"      // the worker and its tool hosts are not
	closeOnExec = "close-on-exec" // and close_range, with exec
	cleanEnv    = "clean-environment"
	noPath      = "no-path" // nothing of ours listens on a path
	ptsMax      = "devpts:max"
	sealedHome  = "mount:sealed-home" // /home without permissions in a root that is read-only
	mountRO     = "mount:read-only"
	mountNoSUID = "mount:nosuid"
	mountNoDev  = "mount:nodev"
	tmpfsSize   = "mount:size"
	tmpfsInodes = "mount:inodes"

	// The rules of Landlock, besides those that jail names.
	ruleFiles  = jail.LayerLandlock + ":files"
	ruleMounts = jail.LayerLandlock + ":mounts"
	rulePtrace = jail.LayerLandlock + ":ptrace"
)

// Settings of the sandbox's own, which jail makes in its /proc.
const (
	RuleInotify  = "sysctl:max_inotify_instances"
	RuleFastOpen = "sysctl:tcp_fastopen"
)

// seccompRule names a call that the filter refuses, or some arguments of it.
func seccompRule(call string) string { return jail.LayerSeccomp + ":" + call }

// Stops are all names that may stand in a row's StoppedBy, alone or joined by a "+",
// but those of the filter, which are "seccomp:" and the call it is about, or
// "seccomp:arch".
func Stops() []string {
	return []string{
		jail.LayerUser, jail.LayerMount, jail.LayerPID, jail.LayerNetwork, jail.LayerIPC, jail.LayerUTS,
		jail.LayerHidepid, jail.LayerNoNewPrivs,
		capabilities, otherUID, rlimits, dumpable, closeOnExec, cleanEnv, noPath, ptsMax,
		sealedHome, mountRO, mountNoSUID, mountNoDev, tmpfsSize, tmpfsInodes, RuleFastOpen, RuleInotify,
		ruleFiles, ruleMounts, rulePtrace, jail.RuleLandlockTCP, jail.RuleLandlockScope,
	}
}
