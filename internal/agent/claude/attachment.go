package claude

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"net/http"
	"os"
	"strings"
	"syscall"
	"unicode/utf8"

	"carrel/internal/agent/session"
	"carrel/internal/jail"
	"carrel/protocol"
)

const (
	attachmentsDir = "attachments" // in the home, and for the tools in the workspace

	// What goes to the model as such; what is larger, it gets as a path. The API
	// takes an image of 5 MiB and a request of 32 MiB, both in base64.
	maxImageBytes = 5 << 20 / 4 * 3
	maxPDFBytes   = 12 << 20
	maxTextBytes  = 128 << 10
	maxAttached   = 20 << 20 // all that one request has
)

// attachments are the blocks that the model sees in place of a transcript's, by
// id. They are read once a run.
type attachments struct {
	blocks map[string]json.RawMessage
	bytes  int // of those that go as such
}

// attach reads an attachment of this run and gives the block for the transcript.
func (r *run) attach(a protocol.Attachment) (json.RawMessage, error) {
	if protocol.CheckSessionID(a.ID) != nil { // ids have the same letters
		return nil, protocol.Errorf(protocol.CodeNotFound, "attachment %.60q: there is none", a.ID)
	}
	mediaType, _, err := mime.ParseMediaType(a.Type)
	if err != nil && a.Type != "" {
		return nil, protocol.Errorf(protocol.CodeInvalidRequest, "attachment %s: %.60q is no media type", a.ID, a.Type)
	}
	block := session.AttachmentBlock{Type: session.AttachmentType, ID: a.ID, MediaType: mediaType}
	if err := r.loadAttachment(block, true); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, protocol.Errorf(protocol.CodeNotFound, "attachment %s: there is none", a.ID)
		}
		return nil, fmt.Errorf("attachment %s: %w", a.ID, err)
	}
	return session.Encode(block), nil
}

// resolve puts what attachments hold in the place of the blocks that name them.
// One that is gone by now is said to be gone.
func (r *run) resolve(content []json.RawMessage) []json.RawMessage {
	resolved := make([]json.RawMessage, len(content))
	for i, raw := range content {
		resolved[i] = raw
		var b session.AttachmentBlock
		if json.Unmarshal(raw, &b) != nil || b.Type != session.AttachmentType {
			continue
		}
		if r.attachments.blocks[b.ID] == nil {
			if err := r.loadAttachment(b, false); err != nil {
				r.attachments.set(b.ID, session.TextBlock(fmt.Sprintf("[The attachment %s is no longer there.]", b.ID)))
			}
		}
		resolved[i] = r.attachments.blocks[b.ID]
	}
	return resolved
}

func (a *attachments) set(id string, block json.RawMessage) {
	if a.blocks == nil {
		a.blocks = make(map[string]json.RawMessage)
	}
	a.blocks[id] = block
}

// loadAttachment makes the block of a file. fresh tells that it came with this
// run, so that the tools get it where the model cannot take it as such.
func (r *run) loadAttachment(b session.AttachmentBlock, fresh bool) error {
	file, err := openRegular(r.agent.options.Home, attachmentsDir+"/"+b.ID)
	if err != nil {
		return err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxPDFBytes+1))
	if err != nil {
		return err
	}
	if b.MediaType == "" {
		b.MediaType, _, _ = mime.ParseMediaType(http.DetectContentType(data)) // gives no other
	}
	if block, ok := asSuch(b.MediaType, data); ok && r.attachments.bytes+len(block) <= maxAttached {
		r.attachments.bytes += len(block)
		r.attachments.set(b.ID, block)
		return nil
	}
	place := attachmentsDir + "/" + b.ID
	if fresh {
		if err := copyIn(r.agent.options.Workspace, place, file); err != nil {
			return err
		}
	}
	r.attachments.set(b.ID, session.TextBlock(fmt.Sprintf("[The user attached %s (%s). For the tools it is the file %s/%s.]",
		b.ID, b.MediaType, jail.WorkspaceDir, place)))
	return nil
}

// asSuch gives the block of a file that the model can see for itself.
func asSuch(mediaType string, data []byte) (json.RawMessage, bool) {
	switch mediaType {
	case "image/png", "image/jpeg", "image/gif", "image/webp":
		return sourceBlock("image", mediaType, data), len(data) > 0 && len(data) <= maxImageBytes
	case "application/pdf":
		return sourceBlock("document", mediaType, data), len(data) > 0 && len(data) <= maxPDFBytes
	}
	if !isText(mediaType) || len(data) == 0 || len(data) > maxTextBytes || !utf8.Valid(data) {
		return nil, false
	}
	return session.TextBlock("[An attachment:]\n" + string(data)), true
}

func sourceBlock(kind, mediaType string, data []byte) json.RawMessage {
	return session.Encode(map[string]any{"type": kind, "source": map[string]string{
		"type": "base64", "media_type": mediaType, "data": base64.StdEncoding.EncodeToString(data),
	}})
}

func isText(mediaType string) bool {
	switch mediaType {
	case "application/json", "application/xml", "application/yaml", "application/toml", "application/javascript", "application/sql":
		return true
	}
	return strings.HasPrefix(mediaType, "text/") || strings.HasSuffix(mediaType, "+json") || strings.HasSuffix(mediaType, "+xml")
}

// openRegular opens a file and nothing else, without waiting for one.
func openRegular(root *os.Root, name string) (*os.File, error) {
	file, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("is no regular file")
	}
	if err != nil {
		_ = file.Close()
		return nil, err
	}
	return file, nil
}

// copyIn puts a file into the workspace. What lies there is the tools', so it is
// walked with a root, which no link leads out of (to another attachment, say, or
// a session), and a file that is there already stays.
func copyIn(workspace *os.Root, name string, from *os.File) (err error) {
	if _, err := from.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if err := workspace.MkdirAll(attachmentsDir, 0o755); err != nil {
		return err
	}
	to, err := workspace.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from)
	if err = errors.Join(err, to.Close()); err != nil {
		return errors.Join(err, workspace.Remove(name)) // half a file is none
	}
	return nil
}
