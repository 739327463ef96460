package client

import (
	"context"
	"io"
	"net/http"
	"net/url"

	"carrel/protocol"
)

// Upload is a file that is given to a user's runs.
type Upload struct {
	Name    string // as the agent sees it; "": the daemon makes one up
	Type    string // media type; "": what the content shows
	Content io.Reader
	Bytes   int64 // of Content; -1 if that is not known
}

// Attach stores a file for a user's runs. Its id goes into
// [protocol.ExecuteRequest].Attachments.
func (c *Client) Attach(ctx context.Context, userID string, file Upload) (protocol.AttachmentInfo, error) {
	what := call{
		method: http.MethodPost, path: userPath(userID, "/attachments"), stream: file.Content, bytes: file.Bytes,
		header: http.Header{"Expect": {"100-continue"}}, // who refuses it says so before it is sent
	}
	if file.Type != "" {
		what.header.Set("Content-Type", file.Type)
	}
	if file.Name != "" {
		what.query = url.Values{"name": {file.Name}}
	}
	var info protocol.AttachmentInfo
	err := c.call(ctx, what, &info)
	return info, err
}
