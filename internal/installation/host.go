package installation

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
)

func (c *checker) envFile() Finding {
	info, err := fs.Stat(c.o.Root, envFile)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return notApplicable("there is no /" + envFile + ", or it is not for this user to see")
	}
	if err != nil {
		return warn("run carrel doctor as root", "%v", err)
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return warn("chmod 600 /"+envFile, "/%s has mode %#o: others can read or change what may hold a key", envFile, mode)
	}
	return ok("/%s, mode %#o", envFile, info.Mode().Perm())
}

func (c *checker) baseDir() Finding {
	dir, err := filepath.Abs(c.o.BaseDir)
	if err != nil {
		return warn("set SANDBOX_BASE_DIR", "%v", err)
	}
	if c.unit.Path != "" { // the daemon's, not that of who asks
		dir = stateDir
		for word := range strings.FieldsSeq(strings.Join(c.unit.settings["Environment"], " ")) {
			if value, isIt := strings.CutPrefix(strings.Trim(word, `"'`), "SANDBOX_BASE_DIR="); isIt {
				dir = value
			}
		}
	}
	info, err := fs.Stat(c.o.Root, strings.TrimPrefix(dir, "/"))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return notApplicable(dir + " is not made yet")
	case err != nil:
		return warn("run carrel doctor as root", "%v", err)
	}
	// Read or write for others is a way around the API; a search bit is what a
	// sandbox's own uid walks by, where the daemon is root.
	if mode := info.Mode().Perm(); mode&0o066 != 0 {
		return warn("chmod 700 "+dir, "%s has mode %#o: others can look into it", dir, mode)
	}
	return ok("%s, mode %#o", dir, info.Mode().Perm())
}

// sysctl is a setting of the kernel; "" where it has none of that name.
func (c *checker) sysctl(name string) string {
	text, err := fs.ReadFile(c.o.Root, "proc/sys/"+name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

func (c *checker) userNamespaces() Finding {
	if c.sysctl("kernel/unprivileged_userns_clone") == "0" {
		return warn("sysctl -w kernel.unprivileged_userns_clone=1, and in /etc/sysctl.d", "ordinary users may make none: kernel.unprivileged_userns_clone=0")
	}
	got := c.sysctl("user/max_user_namespaces")
	n, err := strconv.Atoi(got)
	if err != nil {
		return warn("use a kernel with CONFIG_USER_NS", "user.max_user_namespaces cannot be read: %q", got)
	}
	if n < 2*c.o.MaxWorkers+1 { // a worker that is replaced is there twice for a moment
		return warn(fmt.Sprintf("sysctl -w user.max_user_namespaces=%d, and in /etc/sysctl.d", max(10000, 4*c.o.MaxWorkers)),
			"user.max_user_namespaces=%d, %d workers take one each", n, c.o.MaxWorkers)
	}
	return ok("user.max_user_namespaces=%d", n)
}

func (c *checker) appArmor() Finding {
	if c.sysctl("kernel/apparmor_restrict_unprivileged_userns") != "1" {
		return notApplicable("AppArmor does not restrict user namespaces here")
	}
	if c.isRoot() {
		return ok("AppArmor restricts user namespaces, and the daemon is root")
	}
	profiles, err := fs.Glob(c.o.Root, "etc/apparmor.d/*carrel*")
	for _, file := range profiles {
		text, err := fs.ReadFile(c.o.Root, file)
		if err == nil && strings.Contains(string(text), "userns,") && strings.Contains(string(text), "carrel-worker") {
			return ok("/%s lets carrel-worker make user namespaces", file)
		}
	}
	return warn("install deploy/apparmor/carrel as /etc/apparmor.d/carrel and run apparmor_parser -r /etc/apparmor.d/carrel",
		"AppArmor forbids user namespaces to ordinary users (Ubuntu's default), and no profile lets carrel-worker make them%s", because(err))
}

func because(err error) string {
	if err == nil {
		return ""
	}
	return ": " + err.Error()
}
