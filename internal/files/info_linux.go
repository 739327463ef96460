package files

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"carrel/protocol"
)

// infoOf describes what stands at a name; target is that of a link.
func infoOf(name string, st *unix.Stat_t, target string) protocol.FileInfo {
	info := protocol.FileInfo{
		Name:       strings.ToValidUTF8(name, "\ufffd"),
		Type:       protocol.FileOther,
		ModifiedAt: modifiedAt(st),
		Mode:       fmt.Sprintf("%04o", st.Mode&0o7777),
		Target:     strings.ToValidUTF8(target, "\ufffd"),
	}
	if !utf8.ValidString(name) {
		info.NameEscaped = url.PathEscape(name)
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		info.Type, info.Size = protocol.FileRegular, st.Size
	case unix.S_IFDIR:
		info.Type = protocol.FileDirectory
	case unix.S_IFLNK:
		info.Type = protocol.FileLink
	}
	return info
}

// maxSeconds is the end of the year 9999, after which a time has no JSON (RFC 3339)
// and no HTTP date. A sandbox may set any.
const maxSeconds = 253402300799

func modifiedAt(st *unix.Stat_t) time.Time {
	return time.Unix(min(max(st.Mtim.Sec, 0), maxSeconds), st.Mtim.Nsec).UTC()
}

// etagOf names the content of a file, as strongly as can be told without reading it:
// the time of change is the kernel's, and no sandbox can set it.
func etagOf(st *unix.Stat_t) string {
	return fmt.Sprintf(`"%x-%x-%x-%x"`, st.Ino, st.Size, st.Mtim.Nano(), st.Ctim.Nano())
}

// explain gives an error of the file system its code.
func explain(path string, err error) error {
	if _, coded := errors.AsType[*protocol.Error](err); coded {
		return err
	}
	shown := fmt.Sprintf("%.200q", path)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOENT):
		return protocol.Errorf(protocol.CodeNotFound, "the user has no file %s", shown)
	case errors.Is(err, unix.ENOTDIR):
		return protocol.Errorf(protocol.CodeConflict, "%s: a part of the path is no directory: %w", shown, err)
	case errors.Is(err, unix.ELOOP):
		return protocol.Errorf(protocol.CodeConflict, "%s: is, or leads through, a symbolic link, which is not followed: %w", shown, err)
	case errors.Is(err, unix.EXDEV):
		return protocol.Errorf(protocol.CodeConflict, "%s: leads out of the workspace's file system: %w", shown, err)
	case errors.Is(err, unix.EACCES):
		return protocol.Errorf(protocol.CodeConflict, "%s: its mode, or that of a directory above it, forbids this: %w", shown, err)
	case errors.Is(err, unix.EAGAIN):
		return protocol.Errorf(protocol.CodeConflict, "%s: the sandbox has a lease on it: %w", shown, err)
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return protocol.Errorf(protocol.CodeDiskQuotaExceeded, "no space is left: %w", err)
	}
	return fmt.Errorf("%s: %w", shown, err)
}
