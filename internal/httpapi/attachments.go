package httpapi

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"time"

	"carrel/protocol"
)

// uploadTimeout is what one upload may take: 32 MiB over a slow line.
const uploadTimeout = 10 * time.Minute

// attach serves POST /v1/users/{user_id}/attachments. The body is the file itself,
// or multipart/form-data (RFC 7578) of which the first part that is a file counts.
func (a *api) attach(w http.ResponseWriter, r *http.Request) error {
	user, err := userID(r)
	if err != nil {
		return err
	}
	limitBodyTime(w, r, uploadTimeout)
	defer limitBodyTime(w, r, drainTimeout)
	mediaType, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil && r.Header.Get("Content-Type") != "" {
		return invalid("Content-Type: is no media type")
	}
	name, body := r.URL.Query().Get("name"), io.Reader(r.Body)
	switch mediaType {
	case "multipart/form-data":
		part, err := filePart(r.Body, params["boundary"])
		if err != nil {
			return err
		}
		mediaType, body = part.Header.Get("Content-Type"), part
		if name == "" {
			name = part.FileName()
		}
	case "application/x-www-form-urlencoded":
		mediaType = "" // what curl says of --data-binary, and nothing of the file
	}
	info, err := a.service.AddAttachment(r.Context(), user, name, mediaType, body)
	if err != nil {
		return fmt.Errorf("attach: %w", uploadError(err, "did not arrive within "+uploadTimeout.String()))
	}
	return a.writeJSON(w, http.StatusCreated, info)
}

func filePart(body io.Reader, boundary string) (*multipart.Part, error) {
	if boundary == "" {
		return nil, invalid("Content-Type: multipart/form-data has no boundary")
	}
	parts := multipart.NewReader(body, boundary)
	for {
		part, err := parts.NextPart()
		if errors.Is(err, io.EOF) {
			return nil, invalid("body: has no file")
		}
		if err != nil {
			return nil, invalid("body: is no multipart/form-data: %v", err)
		}
		if part.FileName() != "" {
			return part, nil
		}
	}
}

// uploadError gives a body that broke off its code; late tells what it did if its time
// ran out.
func uploadError(err error, late string) error {
	if _, ok := errors.AsType[*protocol.Error](err); ok {
		return err
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return invalid("body: ended early")
	}
	if timeout, ok := errors.AsType[interface {
		error
		Timeout() bool
	}](err); ok && timeout.Timeout() {
		return &answerError{
			error:  protocol.Errorf(protocol.CodeInvalidRequest, "body: %s", late),
			status: http.StatusRequestTimeout,
		}
	}
	return err
}
