package jail

// BaseEnv is the environment of a worker and its tools, built from nothing:
// defaults, then allowed, which the daemon's configuration names one by one, then
// what tells a sandbox where and whose it is, which nothing overrides. Of two
// entries of one name the later one counts.
func BaseEnv(userID string, allowed []string) []string {
	env := []string{
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"LANG=C.UTF-8",
		"TZ=UTC",
		"TERM=dumb",
	}
	env = append(env, allowed...)
	return append(env,
		"HOME="+WorkspaceDir,
		"USER=agent",
		"SANDBOX_USER_ID="+userID,
		"SANDBOX_DIR="+WorkspaceDir,
	)
}
