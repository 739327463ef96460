package httpapi

import (
	"encoding/json"
	"net/http"
	"strconv"

	"github.com/invopop/jsonschema"

	"carrel/protocol"
)

func fileOperations(s *schemas) map[string]operation {
	list, info, unpacked := s.answer(protocol.FileList{}), s.answer(protocol.FileInfo{}), s.answer(protocol.UnpackResult{})
	query := map[string]docParameter{
		"limit":   limitParameter(maxFilesLimit, defaultFilesLimit),
		"cursor":  {Description: "The `next_cursor` of the page before, of the same directory.", Schema: &jsonschema.Schema{Type: "string"}},
		"archive": archiveParameter("Answer with the directory as a tar archive, as does `Accept: application/x-tar`."),
	}
	uploads := []protocol.Code{protocol.CodeConflict, protocol.CodeDiskQuotaExceeded, protocol.CodeNotFound, protocol.CodeTooLarge}
	return map[string]operation{
		"GET /v1/users/{user_id}/files": {
			id: "listWorkspace", tag: "files", query: query,
			answers: map[int]docResponse{http.StatusOK: directoryAnswer(list, nil)},
			codes:   []protocol.Code{protocol.CodeConflict, protocol.CodeNotFound},
		},
		"PUT /v1/users/{user_id}/files": {
			id: "unpackWorkspace", tag: "files", about: "The body is a tar archive, whatever its Content-Type says.",
			query:   map[string]docParameter{"archive": archiveParameter("May be left out: the workspace can take nothing else.")},
			body:    &docBody{Required: true, Content: map[string]docMedia{tarMediaType: opaque(), "*/*": opaque()}},
			answers: map[int]docResponse{http.StatusOK: jsonAnswer("It is unpacked.", unpacked)},
			codes:   uploads,
			refuses: []int{http.StatusRequestTimeout},
		},
		"GET /v1/users/{user_id}/files/{path...}": {
			id: "getFile", tag: "files", about: "A file downloads; a directory lists, or comes as a tar archive. Conditions and ranges are of a file (RFC 9110, sections 13 and 14).",
			headers: []string{"Range", "If-Range", "If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since"},
			query:   query,
			answers: map[int]docResponse{
				http.StatusOK: directoryAnswer(list, map[string]docMedia{mediaBytes: opaque()}),
				http.StatusPartialContent: answerOf("Parts of the file.", map[string]docMedia{mediaBytes: opaque(), "multipart/byteranges": opaque()},
					append(fileHeaders(), "Content-Range")...),
				http.StatusNotModified: answerOf("The file is the one that the condition tells.", nil, fileHeaders()...),
			},
			codes:   []protocol.Code{protocol.CodeConflict, protocol.CodeNotFound},
			refuses: []int{http.StatusPreconditionFailed, http.StatusRequestedRangeNotSatisfiable},
		},
		"PUT /v1/users/{user_id}/files/{path...}": {
			id: "putFile", tag: "files", about: "A file is stored whole or not at all; directories above it are made. With `?archive=tar`, or the Content-Type of one, the body is an archive that is unpacked into the directory.",
			headers: []string{"If-Match", "If-None-Match"},
			query:   map[string]docParameter{"archive": archiveParameter("The body is a tar archive, whatever its Content-Type says.")},
			body:    &docBody{Required: true, Content: map[string]docMedia{tarMediaType: opaque(), "*/*": opaque()}},
			answers: map[int]docResponse{
				http.StatusOK:      jsonAnswer("The file that has replaced another, or what was unpacked.", &jsonschema.Schema{OneOf: []*jsonschema.Schema{info, unpacked}}, "ETag"),
				http.StatusCreated: jsonAnswer("The file, which is new.", info, "ETag", "Location"),
			},
			codes:   uploads,
			refuses: []int{http.StatusRequestTimeout, http.StatusPreconditionFailed},
		},
		"DELETE /v1/users/{user_id}/files/{path...}": {
			id: "deleteFile", tag: "files",
			headers: []string{"If-Match", "If-None-Match"},
			answers: map[int]docResponse{http.StatusNoContent: answerOf("It is gone.", nil)},
			codes:   []protocol.Code{protocol.CodeConflict, protocol.CodeNotFound},
			refuses: []int{http.StatusPreconditionFailed},
		},
	}
}

// directoryAnswer is a directory's list or archive, and what else there may be.
func directoryAnswer(list *jsonschema.Schema, content map[string]docMedia) docResponse {
	all := map[string]docMedia{mediaJSON: {Schema: list}, tarMediaType: opaque()}
	about, headers := "A page of the directory, or its archive.", []string{"Content-Disposition", "Carrel-Omitted"}
	for media, m := range content {
		all[media] = m
		about, headers = "The file, a page of the directory, or its archive.", append(fileHeaders(), "Carrel-Omitted")
	}
	return answerOf(about, all, headers...)
}

func fileHeaders() []string {
	return []string{"ETag", "Last-Modified", "Accept-Ranges", "Content-Disposition"}
}

func archiveParameter(about string) docParameter {
	return docParameter{Description: about, Schema: &jsonschema.Schema{Type: "string", Enum: []any{"tar"}}}
}

func formSchema() *jsonschema.Schema {
	properties := jsonschema.NewProperties()
	properties.Set("file", &jsonschema.Schema{Type: "string", ContentMediaType: mediaBytes})
	return &jsonschema.Schema{Type: "object", Properties: properties, AdditionalProperties: jsonschema.TrueSchema}
}

func userSchema() *jsonschema.Schema {
	return &jsonschema.Schema{Type: "string", MinLength: new(uint64(1)), MaxLength: new(uint64(protocol.MaxUserIDBytes))}
}

func sessionSchema() *jsonschema.Schema {
	return &jsonschema.Schema{Type: "string", MinLength: new(uint64(1)), MaxLength: new(uint64(protocol.MaxSessionIDBytes)), Pattern: sessionPattern}
}

// sharedParameters are those of paths, and the headers of requests.
func sharedParameters() map[string]*docParameter {
	words := &jsonschema.Schema{Type: "string"}
	path := func(about string, schema *jsonschema.Schema) *docParameter {
		return &docParameter{In: "path", Required: true, Description: about, Schema: schema}
	}
	inHeader := func(about string, schema *jsonschema.Schema) *docParameter {
		return &docParameter{In: "header", Description: about, Schema: schema}
	}
	all := map[string]*docParameter{
		"user_id":     path("Any UTF-8 text of 1 to 256 bytes without control characters, percent-encoded.", userSchema()),
		"session_id":  path("1 to 128 of A-Z a-z 0-9 . _ -, but not . or ..", sessionSchema()),
		"run_id":      path("`run_` and a ULID.", words),
		"approval_id": path("The `approval_id` of an APPROVAL_REQUESTED.", words),
		"path":        path("A path below the workspace: each element percent-encoded on its own, the slashes between them as they are.", words),

		"Prefer":          inHeader("`respond-async` answers 202 at once (RFC 7240).", words),
		"Idempotency-Key": inHeader("Visible ASCII. The same key of the same caller within 24 h answers with the run that it started; with another request it is `conflict`.", &jsonschema.Schema{Type: "string", MinLength: new(uint64(1)), MaxLength: new(uint64(maxIdempotencyBytes)), Pattern: "^[!-~]+$"}),
		"Last-Event-ID":   inHeader("The `id` of the last event that was seen; an EventSource sends it by itself.", &jsonschema.Schema{Type: "integer", Minimum: "0"}),

		"X-Carrel-User": inHeader("For whom the request is made, percent-encoded as in a path. Only a user key may leave it out.", words),

		"Range":               inHeader("Parts of the file.", words),
		"If-Range":            inHeader("Range counts only if the file is still this one.", words),
		"If-Match":            inHeader("ETags, or `*`: 412 unless what is there has one of them.", words),
		"If-None-Match":       inHeader("ETags, or `*`: 412 (of a GET 304) if what is there has one of them.", words),
		"If-Modified-Since":   inHeader("304 unless the file is newer.", words),
		"If-Unmodified-Since": inHeader("412 if the file is newer.", words),
	}
	for name, p := range all {
		p.Name = name
	}
	all["path"].ManySegments = true
	return all
}

// sharedHeaders are those of answers.
func sharedHeaders() map[string]*docHeader {
	words := &jsonschema.Schema{Type: "string"}
	count := &jsonschema.Schema{Type: "integer", Minimum: "0"}
	return map[string]*docHeader{
		"X-Request-Id":        {Description: "Of this answer, for the daemon's log.", Required: true, Schema: words},
		"Location":            {Description: "Where the run, or the new file, is found.", Schema: words},
		"Idempotent-Replayed": {Description: "The Idempotency-Key named a run started earlier, which is this one.", Schema: &jsonschema.Schema{Type: "string", Const: "true"}},
		"Preference-Applied":  {Description: "What was preferred and done.", Required: true, Schema: &jsonschema.Schema{Type: "string", Const: "respond-async"}},
		"Retry-After":         {Description: "Seconds until another try has a chance.", Schema: count},
		"WWW-Authenticate":    {Description: "How to sign in.", Required: true, Schema: &jsonschema.Schema{Type: "string", Const: "Bearer"}},
		"ETag":                {Description: "Of the file's content.", Schema: words},
		"Last-Modified":       {Description: "When the file was.", Schema: words},
		"Accept-Ranges":       {Description: "Ranges may be asked for.", Schema: words},
		"Content-Range":       {Description: "Which part this is.", Schema: words},
		"Content-Disposition": {Description: "The name to store it under.", Schema: words},
		"Carrel-Omitted":      {Description: "A trailer: how many names the archive leaves out.", Schema: count, Trailer: true},
	}
}

func number(n int) json.Number { return json.Number(strconv.Itoa(n)) }
