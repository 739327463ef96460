package carrel

import (
	"context"
	"fmt"
	"io"

	"carrel/internal/audit"
	"carrel/internal/workspace"
	"carrel/protocol"
)

// maxAttachmentBytes is what one request to the Messages API may have in all (32 MB;
// API overview, "Request size limits"): a larger file could not be shown to a model.
const maxAttachmentBytes = 32 << 20

// AddAttachment stores a file for a user's runs, whole or not at all. name is what
// its owner calls it, mediaType what the sender says it is ("" = look). Errors:
// CodeInvalidRequest, CodeTooLarge, CodeDiskQuotaExceeded, CodeShuttingDown.
func (o *Orchestrator) AddAttachment(ctx context.Context, userID, name, mediaType string, body io.Reader) (info protocol.AttachmentInfo, err error) {
	if err := protocol.CheckUserID(userID); err != nil {
		return protocol.AttachmentInfo{}, err
	}
	defer func() {
		o.note(ctx, audit.Event{Action: audit.AttachmentAdded, UserID: userID, File: info.ID, Bytes: info.Size}, err)
	}()
	if err := o.enter(); err != nil {
		return protocol.AttachmentInfo{}, err
	}
	defer o.runsWG.Done()
	left, free, err := o.room.take(ctx, userID, maxAttachmentBytes)
	if err != nil {
		return protocol.AttachmentInfo{}, err
	}
	defer free()
	info, err = o.dirs.AddAttachment(ctx, userID, workspace.Upload{
		Name: name, Type: mediaType, Body: body, MaxBytes: left,
	})
	if protocol.CodeOf(err) == protocol.CodeTooLarge && left < maxAttachmentBytes {
		err = protocol.Errorf(protocol.CodeDiskQuotaExceeded, "the user may have %d bytes more (SANDBOX_DISK_QUOTA)", left)
	}
	return info, err
}

// findAttachments fills in what is known of a request's attachments. One that the
// user does not have is CodeNotFound, whoever else has it.
func (o *Orchestrator) findAttachments(ctx context.Context, req *protocol.ExecuteRequest) error {
	found := make([]protocol.Attachment, 0, len(req.Attachments))
	for i, asked := range req.Attachments {
		info, err := o.dirs.Attachment(ctx, req.UserID, asked.ID)
		if err != nil {
			return fmt.Errorf("attachments[%d]: %w", i, err)
		}
		found = append(found, protocol.Attachment{ID: info.ID, Type: info.Type})
	}
	req.Attachments = found
	return nil
}
