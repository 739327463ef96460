package client

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"carrel/protocol"
)

// tarMediaType is that of an archive, either way.
const tarMediaType = "application/x-tar"

// ListFiles lists a directory of a user's workspace, "" for the workspace itself: one
// page, from a NextCursor on, or the first.
func (c *Client) ListFiles(ctx context.Context, userID, path, cursor string) (protocol.FileList, error) {
	target := filesPath(userID, path)
	if cursor != "" {
		target += "?cursor=" + url.QueryEscape(cursor)
	}
	resp, err := c.send(ctx, call{method: http.MethodGet, path: target})
	if err != nil {
		return protocol.FileList{}, err
	}
	defer resp.Body.Close()
	if !isList(resp) {
		return protocol.FileList{}, protocol.Errorf(protocol.CodeConflict, "%q is no directory", path)
	}
	var list protocol.FileList
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswerBytes)).Decode(&list); err != nil {
		return protocol.FileList{}, fmt.Errorf("decode list of files: %w", err)
	}
	return list, nil
}

// isList tells the list of a directory from a file, which comes as bytes alone, whatever
// is in it.
func isList(resp *http.Response) bool { return resp.Header.Get("Content-Type") == "application/json" }

// GetFile opens a file and tells its length. The caller closes it. An answer that is cut
// short is an error of Read.
func (c *Client) GetFile(ctx context.Context, userID, path string) (content io.ReadCloser, bytes int64, err error) {
	resp, err := c.download(ctx, filesPath(userID, path))
	if err != nil {
		return nil, 0, err
	}
	if isList(resp) {
		_ = resp.Body.Close()
		return nil, 0, protocol.Errorf(protocol.CodeConflict, "%q is a directory; ask for an archive of it", path)
	}
	return resp.Body, resp.ContentLength, nil
}

// GetArchive opens a tar archive of a directory. The caller closes it.
func (c *Client) GetArchive(ctx context.Context, userID, path string) (io.ReadCloser, error) {
	resp, err := c.download(ctx, filesPath(userID, path)+"?archive=tar")
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

func (c *Client) download(ctx context.Context, path string) (*http.Response, error) {
	return c.send(ctx, call{method: http.MethodGet, path: path, header: http.Header{"Accept": {"*/*"}}})
}

// PutFile stores a file, whole or not at all, and makes the directories above it. bytes
// is its length, or -1 if that is not known.
func (c *Client) PutFile(ctx context.Context, userID, path string, content io.Reader, bytes int64) (protocol.FileInfo, error) {
	var info protocol.FileInfo
	err := c.call(ctx, upload(filesPath(userID, path), "application/octet-stream", content, bytes), &info)
	return info, err
}

// PutArchive unpacks a tar archive below a directory.
func (c *Client) PutArchive(ctx context.Context, userID, path string, archive io.Reader) (protocol.UnpackResult, error) {
	var result protocol.UnpackResult
	err := c.call(ctx, upload(filesPath(userID, path)+"?archive=tar", tarMediaType, archive, -1), &result)
	return result, err
}

// DeleteFile removes a file, or a directory with all in it.
func (c *Client) DeleteFile(ctx context.Context, userID, path string) error {
	resp, err := c.send(ctx, call{method: http.MethodDelete, path: filesPath(userID, path)})
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// upload is a request with a body that is asked for first: a daemon that refuses it says
// so before it is sent.
func upload(path, mediaType string, content io.Reader, bytes int64) call {
	return call{
		method: http.MethodPut, path: path, stream: content, bytes: bytes,
		header: http.Header{"Content-Type": {mediaType}, "Expect": {"100-continue"}},
	}
}

func filesPath(userID, path string) string {
	escaped := "/v1/users/" + escape(userID) + "/files"
	if path == "" {
		return escaped
	}
	for name := range strings.SplitSeq(path, "/") {
		escaped += "/" + escape(name)
	}
	return escaped
}
