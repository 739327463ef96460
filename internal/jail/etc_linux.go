package jail

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
)

// hostName is what uname says in every sandbox.
const hostName = "carrel"

// etcFiles is all of /etc that is ours. Names resolve from files only: there is
// no way out, so a resolver would but wait.
func etcFiles() map[string]string {
	id := strconv.Itoa(UID)
	return map[string]string{
		"passwd": "agent:x:" + id + ":" + id + ":agent:" + WorkspaceDir + ":/bin/sh\n" +
			"nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
		"group":         "agent:x:" + id + ":\nnogroup:x:65534:\n",
		"hosts":         "127.0.0.1 localhost " + hostName + "\n::1 localhost\n",
		"hostname":      hostName + "\n",
		"nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\nservices: files\nprotocols: files\n",
		"resolv.conf":   "",
	}
}

// etcShared is what is shown of the host's own /etc: no configuration that could
// hold a secret, only what programs cannot start or work without.
var etcShared = []string{"alternatives", "ssl/certs", "ld.so.cache", "services", "protocols"}

func mountEtc() error {
	for name, content := range etcFiles() {
		if err := os.WriteFile(newRoot+"/etc/"+name, []byte(content), filePerm); err != nil {
			return err
		}
	}
	if err := os.Symlink("../usr/lib/os-release", newRoot+"/etc/os-release"); err != nil {
		return err
	}
	for _, name := range etcShared {
		if err := shareEtc(name); err != nil {
			return fmt.Errorf("/etc/%s: %w", name, err)
		}
	}
	return nil
}

func shareEtc(name string) error {
	source := "/etc/" + name
	info, err := os.Stat(source)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // a host without it has programs that do without it
	}
	if err != nil {
		return err
	}
	if parent, _, nested := strings.Cut(name, "/"); nested {
		if err := makeDirs("etc/" + parent); err != nil {
			return err
		}
	}
	if info.IsDir() {
		err = makeDirs("etc/" + name)
	} else {
		err = os.WriteFile(newRoot+source, nil, filePerm)
	}
	if err != nil {
		return err
	}
	return bind(source, newRoot+source, readOnly)
}
