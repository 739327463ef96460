package httpapi

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"

	"carrel/protocol"
)

const (
	defaultFilesLimit = 1000
	maxFilesLimit     = 10_000
	tarMediaType      = "application/x-tar"
	// omittedTrailer tells, after an archive, how many names are not in it.
	omittedTrailer = "Carrel-Omitted"
)

// getFile serves GET /v1/users/{user_id}/files[/{path...}]: a file's content, a
// directory's list or its archive.
func (a *api) getFile(w http.ResponseWriter, r *http.Request) error {
	user, err := userID(r)
	if err != nil {
		return err
	}
	asked, err := asksForArchive(r)
	if err != nil {
		return err
	}
	file, err := a.service.OpenFile(r.Context(), user, r.PathValue("path"))
	if err != nil {
		return fmt.Errorf("open file: %w", err)
	}
	defer func() { _ = file.Close() }()
	isDirectory := file.Info().Type == protocol.FileDirectory
	_, named := quality(r.Header.Get("Accept"), "application", "x-tar")
	switch {
	case isDirectory && (asked || named):
		return a.sendArchive(w, r, file)
	case isDirectory:
		return a.listDirectory(w, r, file)
	case asked:
		return protocol.Errorf(protocol.CodeConflict, "query parameter archive: this is a file, and no directory")
	}
	return a.sendFile(w, r, file)
}

// asksForArchive reads ?archive=.
func asksForArchive(r *http.Request) (bool, error) {
	query := r.URL.Query()
	if query.Has("archive") && query.Get("archive") != "tar" {
		return false, invalid("query parameter archive: must be tar")
	}
	return query.Has("archive"), nil
}

func (a *api) listDirectory(w http.ResponseWriter, r *http.Request, dir OpenFile) error {
	query := r.URL.Query()
	limit := defaultFilesLimit
	if query.Has("limit") {
		var err error
		if limit, err = strconv.Atoi(query.Get("limit")); err != nil || limit < 1 || limit > maxFilesLimit {
			return invalid("query parameter limit: must be 1 to %d", maxFilesLimit)
		}
	}
	list, err := dir.List(r.Context(), query.Get("cursor"), limit)
	if err != nil {
		return fmt.Errorf("list files: %w", err)
	}
	return a.writeJSON(w, http.StatusOK, list)
}

// untrusted makes sure that no browser takes a sandbox's bytes for a page, a script or a
// style of this daemon's; nosniff stands on every answer.
func untrusted(h http.Header, mediaType, name string) {
	h.Set("Content-Type", mediaType)
	h.Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": name}))
	h.Set("Content-Security-Policy", "default-src 'none'; sandbox")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "private, no-cache")
}

// sendArchive streams a directory as a tar archive. Its length is not known: an error on
// the way cuts the connection, so that no part of it looks like the whole.
func (a *api) sendArchive(w http.ResponseWriter, r *http.Request, dir OpenFile) error {
	name := dir.Info().Name
	if name == "" {
		name = "workspace"
	}
	untrusted(w.Header(), tarMediaType, name+".tar")
	w.Header().Set("Trailer", omittedTrailer)
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return nil
	}
	omitted, err := dir.Archive(r.Context(), newPacedWriter(w, a.opts.SlowReader))
	if err != nil {
		return a.cut(r, err)
	}
	w.Header().Set(omittedTrailer, strconv.Itoa(omitted))
	return nil
}

// cut ends the connection in the middle of an answer.
func (a *api) cut(r *http.Request, err error) error {
	a.log.WarnContext(r.Context(), "answer with a user's files was cut short", "error", err)
	panic(http.ErrAbortHandler)
}

// sendFile answers with a file's content: http.ServeContent knows ranges and conditions.
func (a *api) sendFile(w http.ResponseWriter, r *http.Request, file OpenFile) error {
	info := file.Info()
	untrusted(w.Header(), "application/octet-stream", info.Name)
	w.Header().Set("ETag", file.ETag())
	out := &contentWriter{ResponseWriter: w, paced: newPacedWriter(w, a.opts.SlowReader)}
	content := &watchedFile{OpenFile: file}
	http.ServeContent(out, r, "", info.ModifiedAt, content)
	if content.err != nil {
		return a.cut(r, content.err)
	}
	if out.refused != 0 {
		h := w.Header()
		for _, name := range []string{"Content-Disposition", "ETag", "Last-Modified"} {
			h.Del(name)
		}
		return refusal(out.refused, info.Size)
	}
	return nil
}

// refusal puts into our words what ServeContent answers without a content of ours.
func refusal(status int, size int64) error {
	err := invalid("Range: is malformed, or lies outside of the file's %d bytes", size)
	if status == http.StatusPreconditionFailed {
		err = protocol.Errorf(protocol.CodeConflict, "the file is not what If-Match or If-Unmodified-Since tells")
	}
	return &answerError{error: err, status: status}
}

// contentWriter is where ServeContent writes: paced, and without its own words for a
// refusal, which becomes a problem document.
type contentWriter struct {
	http.ResponseWriter

	paced   pacedWriter
	refused int // status
}

func (c *contentWriter) WriteHeader(status int) {
	if status >= http.StatusBadRequest {
		c.refused = status
		return
	}
	c.ResponseWriter.WriteHeader(status)
}

func (c *contentWriter) Write(b []byte) (int, error) {
	if c.refused != 0 {
		return len(b), nil
	}
	return c.paced.Write(b)
}

// watchedFile remembers that a read failed, which ServeContent does not tell.
type watchedFile struct {
	OpenFile

	err error
}

func (f *watchedFile) Read(b []byte) (int, error) {
	n, err := f.OpenFile.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		f.err = err
	}
	return n, err
}

// putFile serves PUT /v1/users/{user_id}/files[/{path...}]. The body is a file, or with
// ?archive=tar or the Content-Type of one, an archive that is unpacked.
func (a *api) putFile(w http.ResponseWriter, r *http.Request) error {
	user, err := userID(r)
	if err != nil {
		return err
	}
	isArchive, err := asksForArchive(r)
	if err != nil {
		return err
	}
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); (err == nil && media == tarMediaType) || r.PathValue("path") == "" {
		isArchive = true // the workspace itself can be nothing else
	}
	if r.Header.Get("Content-Range") != "" {
		return invalid("Content-Range: a file is stored whole (RFC 9110, section 14.4)")
	}
	when, err := preconditions(r.Header)
	if err != nil {
		return err
	}
	if isArchive && when != nil {
		return invalid("If-Match and If-None-Match: an archive has no ETag")
	}
	defer limitBodyTime(w, r, drainTimeout)
	upload := FileUpload{
		Path:  r.PathValue("path"),
		Body:  &pacedReader{r: r.Body, ctl: http.NewResponseController(w), slow: a.opts.SlowReader},
		Bytes: r.ContentLength,
		When:  when,
	}
	if isArchive {
		result, err := a.service.UnpackFiles(r.Context(), user, upload)
		if err != nil {
			return fmt.Errorf("unpack files: %w", uploadError(err, slowBody))
		}
		return a.writeJSON(w, http.StatusOK, result)
	}
	stored, err := a.service.PutFile(r.Context(), user, upload)
	if err != nil {
		return fmt.Errorf("put file: %w", uploadError(err, slowBody))
	}
	if stored.ETag != "" {
		w.Header().Set("ETag", stored.ETag)
	}
	status := http.StatusOK
	if stored.Created {
		status = http.StatusCreated
		w.Header().Set("Location", (&url.URL{Path: r.URL.Path, RawPath: r.URL.EscapedPath()}).EscapedPath())
	}
	return a.writeJSON(w, status, stored.Info)
}

// deleteFile serves DELETE /v1/users/{user_id}/files/{path...}.
func (a *api) deleteFile(w http.ResponseWriter, r *http.Request) error {
	user, err := userID(r)
	if err != nil {
		return err
	}
	when, err := preconditions(r.Header)
	if err != nil {
		return err
	}
	if err := a.service.DeleteFile(r.Context(), user, r.PathValue("path"), when); err != nil {
		return fmt.Errorf("delete file: %w", err)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
