package jail

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
)

// inotifyShare is which part of the host's number of inotify instances and
// watches one sandbox may have, 1/8.
const inotifyShare = 8

// shareInotify keeps a sandbox from taking them all. The kernel counts them in
// every user namespace up to the host's, and there for the user who made the
// sandbox: for root, or the operator. Its number there (fs.inotify.max_user_instances,
// 128 by default) is one for the host's services and all sandboxes together; a
// lower one of the sandbox's own (namespaces(7), /proc/sys/user) goes before it.
func shareInotify() error {
	for from, to := range map[string]string{
		"fs/inotify/max_user_instances": "user/max_inotify_instances",
		"fs/inotify/max_user_watches":   "user/max_inotify_watches",
	} {
		const sys = newRoot + "/proc/sys/"
		content, err := os.ReadFile(sys + from)
		if errors.Is(err, fs.ErrNotExist) {
			continue // a kernel without inotify
		}
		if err != nil {
			return err
		}
		all, err := strconv.Atoi(strings.TrimSpace(string(content)))
		if err != nil {
			return fmt.Errorf("%s: %w", from, err)
		}
		if err := os.WriteFile(sys+to, []byte(strconv.Itoa(max(1, all/inotifyShare))), filePerm); err != nil {
			return err
		}
	}
	return nil
}
