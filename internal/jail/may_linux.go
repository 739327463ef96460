package jail

import (
	"strings"

	"golang.org/x/sys/unix"
)

// ToolMay reports whether a Landlock rule lets the tool tier read the file at an
// absolute, cleaned path without links, or write it. What it may not, no mode of the
// file's own has to do with.
func ToolMay(path string, write bool) bool {
	wanted := uint64(unix.LANDLOCK_ACCESS_FS_READ_FILE)
	if write {
		wanted = unix.LANDLOCK_ACCESS_FS_WRITE_FILE
	}
	for _, r := range systemRules {
		if r.access&wanted != 0 && (path == r.path || strings.HasPrefix(path, r.path+"/")) {
			return true
		}
	}
	return false
}
