package workspace

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"os"
	"path"
	"strings"

	"github.com/oklog/ulid/v2"
	"golang.org/x/sys/unix"

	"carrel/internal/beneath"
	"carrel/protocol"
)

// Attachments lie in the user's home, out of the tools' sight: home/attachments/ID
// is the content, ID.json what is known of it. The sandbox owns that directory and
// may have put anything in it, so nothing there is opened but by a new name of ours,
// or without following a link, and what is not as it was written is not found.
const (
	subdirAttachments = "attachments"
	attachmentPrefix  = "file_"
	metaSuffix        = ".json"
	partSuffix        = ".part"
	sniffBytes        = 512 // what http.DetectContentType looks at
	maxInfoBytes      = 8 << 10
	maxNameBytes      = 255 // NAME_MAX
)

// Upload is a file on its way in.
type Upload struct {
	Name     string // as its owner calls it; the last element of a path counts
	Type     string // media type that the sender says it has; "" = look
	Body     io.Reader
	MaxBytes int64 // a longer one is CodeTooLarge, and nothing of it stays
}

// AddAttachment stores a file for the user's runs, whole or not at all. Its type is
// that of its content. Errors: CodeInvalidRequest where name or type cannot be, or
// the content is not of the declared type; CodeTooLarge; CodeDiskQuotaExceeded; what
// u.Body returns.
func (d *Dirs) AddAttachment(ctx context.Context, userID string, u Upload) (_ protocol.AttachmentInfo, err error) {
	name, err := cleanName(u.Name)
	if err != nil {
		return protocol.AttachmentInfo{}, err
	}
	var head bytes.Buffer
	if _, err := io.CopyN(&head, u.Body, sniffBytes); err != nil && !errors.Is(err, io.EOF) {
		return protocol.AttachmentInfo{}, fmt.Errorf("read attachment: %w", err)
	}
	mediaType, err := typeOf(u.Type, head.Bytes())
	if err != nil {
		return protocol.AttachmentInfo{}, err
	}
	dir, err := d.Open(ctx, userID)
	if err != nil {
		return protocol.AttachmentInfo{}, err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	place, err := dir.attachments(true)
	if err != nil {
		return protocol.AttachmentInfo{}, err
	}
	defer beneath.Close(place)
	info := protocol.AttachmentInfo{ID: attachmentPrefix + ulid.MustNew(ulid.Now(), rand.Reader).String(), Name: name, Type: mediaType}
	sum := sha256.New()
	body := io.TeeReader(io.LimitReader(io.MultiReader(&head, u.Body), u.MaxBytes+1), sum)
	if info.Size, err = dir.writeFile(place, info.ID, body, u.MaxBytes); err != nil {
		return protocol.AttachmentInfo{}, fmt.Errorf("store attachment: %w", err)
	}
	info.SHA256 = hex.EncodeToString(sum.Sum(nil))
	text, err := json.Marshal(info)
	if err == nil {
		_, err = dir.writeFile(place, info.ID+metaSuffix, bytes.NewReader(text), maxInfoBytes)
	}
	if err != nil {
		_ = unix.Unlinkat(place, info.ID, 0)
		return protocol.AttachmentInfo{}, fmt.Errorf("store attachment: %w", err)
	}
	return info, nil
}

// Attachment tells of a file that the user was given; CodeNotFound if there is none
// of this id.
func (d *Dirs) Attachment(ctx context.Context, userID, id string) (_ protocol.AttachmentInfo, err error) {
	missing := protocol.Errorf(protocol.CodeNotFound, "the user has no attachment %.80q", id)
	if _, err := ulid.ParseStrict(strings.TrimPrefix(id, attachmentPrefix)); err != nil || !strings.HasPrefix(id, attachmentPrefix) {
		return protocol.AttachmentInfo{}, missing
	}
	if !d.Exists(userID) {
		return protocol.AttachmentInfo{}, missing // and none is made to look
	}
	dir, err := d.Open(ctx, userID)
	if err != nil {
		return protocol.AttachmentInfo{}, err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	place, err := dir.attachments(false)
	if err != nil {
		return protocol.AttachmentInfo{}, missing
	}
	defer beneath.Close(place)
	var info protocol.AttachmentInfo
	text, err := readSmall(place, id+metaSuffix, maxInfoBytes)
	if err != nil || json.Unmarshal(text, &info) != nil || info.ID != id {
		return protocol.AttachmentInfo{}, missing
	}
	if _, err := cleanName(info.Name); err != nil || !validType(info.Type) { // the sandbox may have written it
		return protocol.AttachmentInfo{}, missing
	}
	return info, nil
}

// Exists reports whether the user has a directory.
func (d *Dirs) Exists(userID string) bool {
	return protocol.CheckUserID(userID) == nil &&
		unix.Faccessat(d.users, DirName(userID), unix.F_OK, unix.AT_SYMLINK_NOFOLLOW) == nil
}

// attachments opens home/attachments, and makes it if it is to.
func (dir *Dir) attachments(create bool) (int, error) {
	home, err := beneath.OpenPlace(dir.fd, subdirHome)
	if err != nil {
		return -1, fmt.Errorf("open home: %w", err)
	}
	defer beneath.Close(home)
	fd, err := beneath.OpenDir(home, subdirAttachments)
	if create && errors.Is(err, unix.ENOENT) {
		if err = dir.dirs.createSub(home, subdirAttachments, dir.UID); err == nil || errors.Is(err, unix.EEXIST) {
			fd, err = beneath.OpenDir(home, subdirAttachments)
		}
	}
	if isReplaced(err) || errors.Is(err, unix.EACCES) {
		err = protocol.Errorf(protocol.CodeConflict, "home/%s is not the directory that was made: %w", subdirAttachments, err)
	}
	return fd, err
}

// writeFile makes a new file of the user's: under another name, synced, then renamed.
// A body that is longer than limit is CodeTooLarge.
func (dir *Dir) writeFile(place int, name string, body io.Reader, limit int64) (size int64, err error) {
	temporary := "." + rand.Text() + partSuffix
	fd, err := beneath.Open(place, temporary, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, 0o600)
	if err != nil {
		return 0, noSpace(err)
	}
	file := os.NewFile(uintptr(fd), name)
	defer func() {
		if err != nil {
			_ = unix.Unlinkat(place, temporary, 0)
		}
	}()
	if dir.dirs.opts.Root {
		err = file.Chown(dir.UID, dir.GID)
	}
	if err == nil {
		size, err = io.Copy(file, body)
	}
	if err == nil && size > limit {
		err = protocol.Errorf(protocol.CodeTooLarge, "it has more than %d bytes", limit)
	}
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return 0, noSpace(err)
	}
	// Never onto what is there.
	return size, unix.Renameat2(place, temporary, place, name, unix.RENAME_NOREPLACE)
}

func noSpace(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return protocol.Errorf(protocol.CodeDiskQuotaExceeded, "no space is left: %w", err)
	}
	return err
}

// readSmall reads a regular file, whatever stands at its name.
func readSmall(place int, name string, limit int64) ([]byte, error) {
	fd, err := beneath.Open(place, name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0) // a FIFO must not hold us
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), name)
	defer func() { _ = file.Close() }()
	stat, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if !stat.Mode().IsRegular() || stat.Size() > limit {
		return nil, fmt.Errorf("%s is no file of ours", name)
	}
	return io.ReadAll(io.LimitReader(file, limit))
}

// cleanName takes the last element of what a sender calls a file.
func cleanName(name string) (string, error) {
	name = path.Base(strings.ReplaceAll(name, `\`, "/"))
	switch name {
	case ".", "/", "..":
		return "file", nil
	}
	if len(name) > maxNameBytes || !isPrintable(name) {
		return "", protocol.Errorf(protocol.CodeInvalidRequest, "name: must have at most %d bytes and no control characters", maxNameBytes)
	}
	return name, nil
}

func isPrintable(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\ufffd' }) < 0
}

// typeOf finds the media type of a file that begins with head. What its content
// shows counts: a model is sent an image as such, so it must be one.
func typeOf(declared string, head []byte) (string, error) {
	found, _, err := mime.ParseMediaType(http.DetectContentType(head))
	if err != nil {
		return "", fmt.Errorf("detect media type: %w", err)
	}
	if declared == "" {
		return found, nil
	}
	if !validType(declared) {
		return "", protocol.Errorf(protocol.CodeInvalidRequest, "type: %.80q is no media type", declared)
	}
	declared, _, _ = mime.ParseMediaType(declared)
	vague := found == "application/octet-stream" || found == "text/plain"
	switch {
	case declared == found:
		return found, nil
	case declared == "application/octet-stream":
		return found, nil
	case vague && !isShown(declared):
		return declared, nil // "text/csv", "application/json": the content does not tell
	case isShown(declared) || isShown(found):
		return "", protocol.Errorf(protocol.CodeInvalidRequest, "type: it is declared as %s, and its content is %s", declared, found)
	default:
		return declared, nil
	}
}

// isShown reports whether a file of this type goes to a model as what it is.
func isShown(mediaType string) bool {
	return strings.HasPrefix(mediaType, "image/") || mediaType == "application/pdf"
}

func validType(mediaType string) bool {
	parsed, _, err := mime.ParseMediaType(mediaType)
	return err == nil && strings.Contains(parsed, "/") && len(mediaType) <= 255
}
