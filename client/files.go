package client

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"carrel/protocol"
)

// tarMediaType is that of an archive, either way.
const tarMediaType = "application/x-tar"

// ListFiles lists a directory of a user's workspace, "" for the workspace itself: one
// page, from a NextCursor on, or the first.
func (c *Client) ListFiles(ctx context.Context, userID, path, cursor string) (protocol.FileList, error) {
	return c.filePage(ctx, userID, path, cursor, 0)
}

// Files gives what is in a directory, "" for the workspace itself, and reads one page of
// pageSize names after the other as they are needed; 0: of the daemon's own size. An error
// is given once and is the last.
func (c *Client) Files(ctx context.Context, userID, path string, pageSize int) iter.Seq2[protocol.FileInfo, error] {
	return pages("", func(cursor string) ([]protocol.FileInfo, string, error) {
		page, err := c.filePage(ctx, userID, path, cursor, pageSize)
		return page.Files, page.NextCursor, err
	})
}

func (c *Client) filePage(ctx context.Context, userID, path, cursor string, limit int) (protocol.FileList, error) {
	what := get(filesPath(userID, path))
	what.query = url.Values{}
	if cursor != "" {
		what.query.Set("cursor", cursor)
	}
	if limit != 0 {
		what.query.Set("limit", strconv.Itoa(limit))
	}
	resp, err := c.send(ctx, what)
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

// File is a file on its way out. An answer that is cut short is an error of Read.
type File struct {
	io.ReadCloser

	Bytes int64 // to come
	// ETag tells this content from any other that the file had or will have.
	ETag string
}

// OpenOptions adjusts one [Client.OpenFile].
type OpenOptions struct {
	Offset int64 // of the first byte to come
	// ETag, if set, is that of an earlier answer: a file that is another by now is an
	// [*Error] with status 412. So the rest of a broken download fits to its beginning.
	ETag string
}

// OpenFile opens a file. The caller closes it.
func (c *Client) OpenFile(ctx context.Context, userID, path string, opts OpenOptions) (*File, error) {
	what := download(filesPath(userID, path))
	if opts.Offset != 0 {
		what.header.Set("Range", fmt.Sprintf("bytes=%d-", opts.Offset))
	}
	if opts.ETag != "" {
		what.header.Set("If-Match", opts.ETag)
	}
	resp, err := c.send(ctx, what)
	if err != nil {
		return nil, err
	}
	switch {
	case isList(resp):
		err = protocol.Errorf(protocol.CodeConflict, "%q is a directory; ask for an archive of it", path)
	case opts.Offset != 0 && resp.StatusCode != http.StatusPartialContent:
		err = fmt.Errorf("%q: asked for its bytes from %d on, and got all", path, opts.Offset)
	default:
		return &File{ReadCloser: resp.Body, Bytes: resp.ContentLength, ETag: resp.Header.Get("ETag")}, nil
	}
	_ = resp.Body.Close()
	return nil, err
}

// GetFile is OpenFile for who wants no more than the content and its length.
func (c *Client) GetFile(ctx context.Context, userID, path string) (content io.ReadCloser, bytes int64, err error) {
	file, err := c.OpenFile(ctx, userID, path, OpenOptions{})
	if err != nil {
		return nil, 0, err
	}
	return file.ReadCloser, file.Bytes, nil
}

// GetArchive opens a tar archive of a directory. The caller closes it.
func (c *Client) GetArchive(ctx context.Context, userID, path string) (io.ReadCloser, error) {
	what := download(filesPath(userID, path))
	what.query = url.Values{"archive": {"tar"}}
	resp, err := c.send(ctx, what)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

func download(path string) call {
	what := get(path)
	what.header = http.Header{"Accept": {"*/*"}}
	return what
}

// Condition is what must hold of a file for it to be changed; if it does not, there is
// an [*Error] with status 412. The zero value demands nothing.
type Condition struct {
	ETag   string // it is this one
	Absent bool   // there is none
}

func (when Condition) header(h http.Header) {
	if when.ETag != "" {
		h.Set("If-Match", when.ETag)
	}
	if when.Absent {
		h.Set("If-None-Match", "*")
	}
}

// PutFile stores a file, whole or not at all, and makes the directories above it. bytes
// is its length, or -1 if that is not known.
func (c *Client) PutFile(ctx context.Context, userID, path string, content io.Reader, bytes int64) (protocol.FileInfo, error) {
	info, _, err := c.PutFileIf(ctx, userID, path, content, bytes, Condition{})
	return info, err
}

// PutFileIf is PutFile under a condition. It returns the ETag that the file has then.
func (c *Client) PutFileIf(ctx context.Context, userID, path string, content io.Reader, bytes int64, when Condition) (info protocol.FileInfo, etag string, err error) {
	what := upload(filesPath(userID, path), "application/octet-stream", content, bytes)
	when.header(what.header)
	header, err := c.callHeader(ctx, what, &info)
	return info, header.Get("ETag"), err
}

// PutArchive unpacks a tar archive below a directory, "" for the workspace itself.
func (c *Client) PutArchive(ctx context.Context, userID, path string, archive io.Reader) (protocol.UnpackResult, error) {
	what := upload(filesPath(userID, path), tarMediaType, archive, -1)
	what.query = url.Values{"archive": {"tar"}}
	var result protocol.UnpackResult
	err := c.call(ctx, what, &result)
	return result, err
}

// DeleteFile removes a file, or a directory with all in it.
func (c *Client) DeleteFile(ctx context.Context, userID, path string) error {
	return c.DeleteFileIf(ctx, userID, path, Condition{})
}

// DeleteFileIf is DeleteFile under a condition.
func (c *Client) DeleteFileIf(ctx context.Context, userID, path string, when Condition) error {
	what := call{method: http.MethodDelete, path: filesPath(userID, path), header: http.Header{}, repeat: whenUndone}
	when.header(what.header)
	return c.call(ctx, what, nil)
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
	escaped := userPath(userID, "/files")
	if path == "" {
		return escaped
	}
	for name := range strings.SplitSeq(path, "/") {
		escaped += "/" + escape(name)
	}
	return escaped
}
