package files

import (
	"strings"

	"carrel/protocol"
)

const (
	maxNameBytes = 255  // NAME_MAX
	maxPathBytes = 4000 // PATH_MAX is 4096
)

// CheckPath makes sure that a path below the workspace has nothing in it but names:
// elements with a slash between, in any bytes. The empty path is the workspace.
func CheckPath(path string) error {
	if path == "" {
		return nil
	}
	if len(path) > maxPathBytes {
		return protocol.Errorf(protocol.CodeInvalidRequest, "path: at most %d bytes are allowed", maxPathBytes)
	}
	for name := range strings.SplitSeq(path, "/") {
		switch {
		case name == "":
			return protocol.Errorf(protocol.CodeInvalidRequest, "path: has an empty element")
		case name == "." || name == "..":
			return protocol.Errorf(protocol.CodeInvalidRequest, `path: "." and ".." are no names here`)
		case len(name) > maxNameBytes:
			return protocol.Errorf(protocol.CodeInvalidRequest, "path: a name may have %d bytes", maxNameBytes)
		case strings.IndexByte(name, 0) >= 0:
			return protocol.Errorf(protocol.CodeInvalidRequest, "path: a name has no zero byte")
		}
	}
	return nil
}

// split cuts the last name off; parent is empty if there is no other.
func split(path string) (parent, name string) {
	if i := strings.LastIndexByte(path, '/'); i >= 0 {
		return path[:i], path[i+1:]
	}
	return "", path
}
