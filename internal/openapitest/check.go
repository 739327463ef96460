package openapitest

import (
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// Exchange is a request and its answer.
type Exchange struct {
	Method      string
	URL         *url.URL
	Request     http.Header
	RequestBody []byte // nil: there was none, or it was not kept
	Status      int
	Answer      http.Header
	Trailer     http.Header
	Body        []byte
	Cut         bool // Body is only its beginning
}

// Check reports everything of an exchange that the document does not tell.
func (d *Document) Check(x *Exchange) error {
	op, ok := d.find(x)
	if !ok {
		return d.checkStray(x)
	}
	response, ok := objects(op.node["responses"])[strconv.Itoa(x.Status)]
	if !ok {
		return x.errorf(op, "status %d is not among its responses", x.Status)
	}
	at := op.pointer + pointer("responses", strconv.Itoa(x.Status))
	if ref, ok := strings.CutPrefix(text(response["$ref"]), "#"); ok {
		at, response = ref, d.resolve(response)
	}
	faults := d.checkHeaders(x, at, response)
	media, err := d.checkBody(x, op, at, response)
	faults = append(faults, err)
	if x.Status < http.StatusBadRequest {
		faults = append(faults, d.checkRequest(x, op)...)
	}
	if err := errors.Join(faults...); err != nil {
		return x.errorf(op, "%w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.seen.Answers[answerName(op.id, strconv.Itoa(x.Status), media)]++
	return nil
}

func (x *Exchange) errorf(op operation, format string, args ...any) error {
	return fmt.Errorf("%s %s (%s): answer %d: %w", x.Method, x.URL.EscapedPath(), op.id, x.Status, fmt.Errorf(format, args...))
}

// find finds the operation of a request. HEAD is GET's (RFC 9110, section 9.3.2).
func (d *Document) find(x *Exchange) (operation, bool) {
	method := x.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	segments := strings.Split(x.URL.EscapedPath(), "/")
	for _, op := range d.operations {
		if op.method == method && d.matches(op, segments) {
			return op, true
		}
	}
	return operation{}, false
}

func (d *Document) matches(op operation, segments []string) bool {
	for i, want := range op.path {
		name, isParameter := strings.CutPrefix(want, "{")
		if isParameter && d.takesAll(op, strings.TrimSuffix(name, "}")) && i == len(op.path)-1 {
			return len(segments) > i
		}
		if i >= len(segments) || !isParameter && want != segments[i] {
			return false
		}
	}
	return len(op.path) == len(segments)
}

// takesAll reports whether a path parameter stands for all that follows.
func (d *Document) takesAll(op operation, name string) bool {
	for _, p := range d.parameters(op, "path") {
		if p.node["name"] == name {
			return p.node["x-many-segments"] == true
		}
	}
	return false
}

// checkStray checks the answer to a request that is no operation's.
func (d *Document) checkStray(x *Exchange) error {
	if x.Status < http.StatusBadRequest {
		return fmt.Errorf("%s %s: answer %d, and the document has no such operation", x.Method, x.URL.EscapedPath(), x.Status)
	}
	if err := d.checkProblem(x, nil); err != nil {
		return fmt.Errorf("%s %s: answer %d: %w", x.Method, x.URL.EscapedPath(), x.Status, err)
	}
	return nil
}

// checkBody checks the media type of an answer and what it has; it returns the type.
func (d *Document) checkBody(x *Exchange, op operation, at string, response node) (media string, err error) {
	content := objects(response["content"])
	if len(content) == 0 {
		if len(x.Body) > 0 {
			return "", fmt.Errorf("has a body of %d bytes, and should have none", len(x.Body))
		}
		return "", nil
	}
	media, _, err = mime.ParseMediaType(x.Answer.Get("Content-Type"))
	if err != nil {
		return "", fmt.Errorf("content type %q: %w", x.Answer.Get("Content-Type"), err)
	}
	described, ok := content[media]
	if !ok {
		return "", fmt.Errorf("content type %s is not among the response's", media)
	}
	schema := at + pointer("content", media, "schema")
	switch {
	case x.Method == http.MethodHead:
	case media == "text/event-stream":
		err = d.checkFrames(x, described, schema)
	case media == problemMediaType:
		codes, _ := op.node["x-codes"].([]any)
		err = d.checkProblem(x, codes)
		if err == nil {
			err = d.validateJSON(schema, x.Body)
		}
	case isJSON(media) && !x.Cut:
		err = d.validateJSON(schema, x.Body)
	}
	return media, err
}

const problemMediaType = "application/problem+json"

func isJSON(media string) bool {
	return media == "application/json" || strings.HasSuffix(media, "+json")
}

// checkProblem checks a problem document; codes are those it may have, nil for all.
func (d *Document) checkProblem(x *Exchange, codes []any) error {
	if got := x.Answer.Get("Content-Type"); got != problemMediaType {
		return fmt.Errorf("is no problem document but %q", got)
	}
	if x.Method == http.MethodHead || x.Cut {
		return nil
	}
	problem, err := unmarshal(x.Body)
	if err != nil {
		return err
	}
	if err := d.validate(pointer("components", "schemas", "Problem"), problem); err != nil {
		return err
	}
	code := text(problem["code"])
	if codes != nil && !slices.Contains(codes, any(code)) {
		return fmt.Errorf("code %s is not among the operation's x-codes", code)
	}
	if got := fmt.Sprint(problem["status"]); got != strconv.Itoa(x.Status) {
		return fmt.Errorf("the document says status %s", got)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.seen.Codes[code]++
	return nil
}

// checkFrames checks the frames of a stream, each by its event. Where the document names
// no events, frames have none, and are all of the stream's one schema.
func (d *Document) checkFrames(x *Exchange, described node, schema string) error {
	frames, err := readFrames(x.Body, x.Cut)
	if err != nil {
		return err
	}
	events := objects(described["x-sse-events"])
	for _, f := range frames {
		ref, ok := strings.CutPrefix(text(events[f.event]["$ref"]), "#")
		if len(events) == 0 && f.event == "" {
			ref, ok = schema, true
		}
		if !ok {
			return fmt.Errorf("event %q is not among the stream's x-sse-events", f.event)
		}
		if err := d.validateJSON(ref, f.data); err != nil {
			return fmt.Errorf("event %s %.200s: %w", f.event, f.data, err)
		}
		d.mu.Lock()
		d.seen.Events[f.event]++
		d.mu.Unlock()
	}
	return nil
}
