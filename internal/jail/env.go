package jail

// BaseEnv is the environment of a worker and its tools, built from nothing: the
// names of the contract, then allowed, which the daemon's configuration names
// one by one.
func BaseEnv(userID string, allowed []string) []string {
	env := []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=" + WorkspaceDir,
		"LANG=C.UTF-8",
		"TZ=UTC",
		"TERM=dumb",
		"USER=agent",
		"SANDBOX_USER_ID=" + userID,
		"SANDBOX_DIR=" + WorkspaceDir,
	}
	return append(env, allowed...) // a later entry counts
}
