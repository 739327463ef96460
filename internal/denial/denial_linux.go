package denial

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"carrel/internal/jail"
	"carrel/protocol"
)

// layerLimits is what bounds a sandbox's own use: processes, memory, sizes.
const layerLimits = "limits"

// Layers are the layers that a denial may name.
func Layers() []string {
	return []string{
		jail.LayerLandlock, jail.LayerMount, jail.LayerNetwork, jail.LayerNoNewPrivs, jail.LayerQuota, jail.LayerSeccomp, jail.LayerUser, layerLimits,
	}
}

// Places says what the tool tier may reach: jail.ToolMay in a sentence.
const Places = "the sandbox lets tools write below /workspace, /tmp and /dev/shm only, and besides read /usr, /bin, /sbin, /lib*, /etc, /proc and /dev"

// why is a denial without its target.
type why struct {
	layer, rule string
	// text says it; the target is put in front of a text that begins with a space.
	text string
}

var (
	noNetwork = why{jail.LayerNetwork, "network", "no network in this sandbox"}
	noTCP     = why{jail.LayerLandlock, "tcp", "no network in this sandbox, and no TCP"}
	readOnly  = why{jail.LayerMount, "read-only", " is read-only here; write below /workspace, /tmp or /dev/shm"}
	noPlace   = why{jail.LayerLandlock, "places", " is out of reach; " + Places}
	fileSize  = why{layerLimits, "file-size", "the sandbox's limit of one file's size is reached"}
	tmpFull   = why{layerLimits, "tmp-size", "the sandbox's /tmp or /dev/shm is full"}
	diskFull  = why{jail.LayerQuota, "disk", "the disk quota is used up: remove what is not needed"}
)

// at makes a denial.
func (w why) at(target string, inferred bool) *protocol.Denial {
	d := &protocol.Denial{Layer: w.layer, Rule: w.rule, Target: oneLine(target), Inferred: inferred}
	text, known := strings.CutPrefix(w.text, " ")
	switch {
	case known && d.Target == "":
		text = "this place " + text
	case known:
		text = d.Target + " " + text
	case d.Target != "":
		text += ": " + d.Target
	}
	layer := w.layer
	if inferred {
		layer += ", likely"
	}
	head, tail, _ := strings.Cut(text, "; ")
	d.Text = fmt.Sprintf("carrel: %s (%s)", head, layer)
	if tail != "" {
		d.Text += "; " + tail
	}
	return d
}

// oneLine makes a target of what a tool has printed: it prints, and has an end.
func oneLine(text string) string {
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(text, ""))
	if len(text) <= protocol.MaxDenialBytes {
		return text
	}
	n := protocol.MaxDenialBytes
	for !utf8.RuneStart(text[n]) {
		n--
	}
	return text[:n]
}

// OfError tells what has denied a file tool to read or write at a path, which must be
// absolute, cleaned and without links; nil = the sandbox has not.
func OfError(err error, path string, write bool) *protocol.Denial {
	switch {
	case errors.Is(err, unix.EROFS):
		return readOnly.at(path, false)
	case errors.Is(err, fs.ErrPermission) && !jail.ToolMay(path, write):
		return noPlace.at(path, false)
	case errors.Is(err, unix.ENOSPC) && isTmp(path):
		return tmpFull.at(path, false)
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return diskFull.at(path, false)
	case errors.Is(err, unix.EFBIG):
		return fileSize.at(path, false)
	}
	return nil
}

// Own reports whether a path is in one of the places that are the user's.
func Own(path string) bool { return isTmp(path) || isBelow(path, jail.WorkspaceDir) }

func isTmp(path string) bool { return isBelow(path, "/tmp") || isBelow(path, "/dev/shm") }

// isSystem reports whether a path is in a directory that holds the host's programs and
// data, which no tool can write: asking for it there can lead into no trap.
func isSystem(path string) bool {
	return slices.ContainsFunc([]string{"/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc"},
		func(dir string) bool { return isBelow(path, dir) })
}

func isBelow(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }
