package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"carrel/protocol"
)

const (
	// maxBodyBytes bounds a JSON body: a message of the longest kind with every
	// second byte escaped, and room for the rest.
	maxBodyBytes = 2*protocol.MaxMessageBytes + 64<<10
	// bodyTimeout is how long a body may take to arrive, drainTimeout how long
	// what is left of a body that nobody wants.
	bodyTimeout  = 60 * time.Second
	drainTimeout = 5 * time.Second
)

// readJSON reads the request's body into v, a pointer to a struct.
func readJSON(w http.ResponseWriter, r *http.Request, v any) error {
	if err := checkContentType(r.Header); err != nil {
		return err
	}
	body, err := readBody(w, r, maxBodyBytes)
	if err != nil {
		return err
	}
	return decodeJSON(body, v)
}

// checkContentType accepts JSON and, for the sake of short command lines, no
// type at all.
func checkContentType(h http.Header) error {
	refuse := func(what string) error {
		return &answerError{
			error:  protocol.Errorf(protocol.CodeInvalidRequest, "%s", what),
			status: http.StatusUnsupportedMediaType,
		}
	}
	if coding := h.Get("Content-Encoding"); coding != "" && !strings.EqualFold(coding, "identity") {
		return refuse("Content-Encoding: must be left out: bodies are not compressed")
	}
	given := h.Get("Content-Type")
	if given == "" {
		return nil
	}
	media, params, err := mime.ParseMediaType(given)
	if err != nil || media != "application/json" {
		return refuse("Content-Type: must be application/json")
	}
	if charset, ok := params["charset"]; ok && !strings.EqualFold(charset, "utf-8") {
		return refuse("Content-Type: the charset must be utf-8")
	}
	return nil
}

// limitBodyTime bounds how long the request's body may take from now on, be it
// a handler that reads it, or net/http, which reads what is left of it (256 KiB
// at most) before it sends the answer.
func limitBodyTime(w http.ResponseWriter, r *http.Request, d time.Duration) {
	if r.Body != http.NoBody {
		// Only a recorder in a test has no read deadline, and it never blocks.
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(d))
	}
}

// readBody reads a body of at most limit bytes that comes within bodyTimeout.
// Then it lifts the deadline, since net/http goes on reading, to see the client
// leave.
func readBody(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	limitBodyTime(w, r, bodyTimeout)
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if err == nil {
		_ = http.NewResponseController(w).SetReadDeadline(time.Time{}) // as above
		return body, nil
	}
	limitBodyTime(w, r, drainTimeout)
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, protocol.Errorf(protocol.CodeTooLarge, "body: at most %d bytes are allowed", limit)
	}
	if timeout, ok := errors.AsType[interface {
		error
		Timeout() bool
	}](err); ok && timeout.Timeout() {
		return nil, &answerError{
			error:  protocol.Errorf(protocol.CodeInvalidRequest, "body: did not arrive within %s", bodyTimeout),
			status: http.StatusRequestTimeout,
		}
	}
	return nil, protocol.Errorf(protocol.CodeInvalidRequest, "body: ended early: %w", err)
}

// decodeJSON decodes one JSON object into v, a pointer to a struct, and refuses
// what encoding/json lets pass: bytes and escapes that are no Unicode (they
// would become U+FFFD, and two user ids one), members that v does not have or
// has in another case, and members given twice (within maps the last one wins).
func decodeJSON(body []byte, v any) error {
	if len(bytes.TrimLeft(body, " \t\r\n")) == 0 {
		return protocol.Errorf(protocol.CodeInvalidRequest, "body: is empty, must be a JSON object")
	}
	if err := checkUTF8(body); err != nil {
		return err
	}
	if err := json.Unmarshal(body, v); err != nil {
		return decodeError(err)
	}
	if err := checkSurrogates(body); err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	return checkMembers(dec, reflect.TypeOf(v).Elem(), "")
}

func checkUTF8(body []byte) error {
	if at := invalidUTF8(body); at >= 0 {
		return protocol.Errorf(protocol.CodeInvalidRequest, "body: byte %d is no UTF-8", at+1)
	}
	return nil
}

// checkSurrogates looks at valid JSON.
func checkSurrogates(body []byte) error {
	if at := loneSurrogate(body); at >= 0 {
		return protocol.Errorf(protocol.CodeInvalidRequest, `body: the \u escape at byte %d is half of a surrogate pair`, at+1)
	}
	return nil
}

// decodeError puts an error of encoding/json into words for the caller.
func decodeError(err error) error {
	if e, ok := errors.AsType[*json.SyntaxError](err); ok {
		return protocol.Errorf(protocol.CodeInvalidRequest, "body: not JSON at byte %d: %s", e.Offset, e.Error())
	}
	e, ok := errors.AsType[*json.UnmarshalTypeError](err)
	if !ok {
		// An UnmarshalJSON of package protocol; its error names the field.
		return protocol.Errorf(protocol.CodeInvalidRequest, "%s", err.Error())
	}
	field := e.Field
	if error(e) != err { //nolint:errorlint // asks whether it is wrapped
		field, _, _ = strings.Cut(err.Error(), ":") // likewise
	}
	if field == "" {
		field = "body"
	}
	given, _, _ := strings.Cut(e.Value, " ") // "number 1e400": the kind alone
	return protocol.Errorf(protocol.CodeInvalidRequest, "%s: must be %s, not %s", field, expected(e.Type), article(given))
}

// expected says in JSON's words what a Go type is read from.
func expected(t reflect.Type) string {
	switch t.Kind() {
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Slice, reflect.Array:
		return "an array"
	case reflect.Struct, reflect.Map:
		return "an object"
	case reflect.Float32, reflect.Float64:
		return "a number of ordinary size"
	default:
		return "a whole number of ordinary size"
	}
}

func article(kind string) string {
	switch kind {
	case "array", "object":
		return "an " + kind
	case "bool":
		return "true or false"
	default:
		return "a " + kind
	}
}

// checkMembers walks the next value of dec, already known to fit t, and checks
// the names of the members of every struct in it. path is "" or ends in a dot.
func checkMembers(dec *json.Decoder, t reflect.Type, path string) error {
	token, err := dec.Token()
	if err != nil {
		return protocol.Errorf(protocol.CodeInvalidRequest, "body: %w", err)
	}
	open, isDelim := token.(json.Delim)
	switch {
	case !isDelim:
		return nil
	case open == '{' && t.Kind() == reflect.Struct:
		return checkObject(dec, t, path)
	case open == '[' && t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct:
		for i := 0; dec.More(); i++ {
			element := strings.TrimSuffix(path, ".") + "[" + strconv.Itoa(i) + "]."
			if err := checkMembers(dec, t.Elem(), element); err != nil {
				return err
			}
		}
		return closeValue(dec, 1)
	default:
		return closeValue(dec, 1)
	}
}

// checkObject checks the members of an object whose opening brace was read.
func checkObject(dec *json.Decoder, t reflect.Type, path string) error {
	fields := jsonFields(t)
	seen := make(map[string]bool, len(fields))
	for dec.More() {
		token, err := dec.Token()
		if err != nil {
			return protocol.Errorf(protocol.CodeInvalidRequest, "body: %w", err)
		}
		name, _ := token.(string)
		field, ok := fields[name]
		if !ok {
			return unknownName("field", path+name, qualified(path, fields))
		}
		if seen[name] {
			return protocol.Errorf(protocol.CodeInvalidRequest, "%s%s: given twice", path, name)
		}
		seen[name] = true
		if err := checkMembers(dec, field, path+name+"."); err != nil {
			return err
		}
	}
	return closeValue(dec, 1)
}

// closeValue reads on until depth brackets are closed. It is a loop, so that
// nesting costs no stack.
func closeValue(dec *json.Decoder, depth int) error {
	for depth > 0 {
		token, err := dec.Token()
		if err != nil {
			return protocol.Errorf(protocol.CodeInvalidRequest, "body: %w", err)
		}
		switch token {
		case json.Delim('{'), json.Delim('['):
			depth++
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
	}
	return nil
}

// jsonFields maps the JSON names of a struct's fields to their types.
func jsonFields(t reflect.Type) map[string]reflect.Type {
	fields := make(map[string]reflect.Type, t.NumField())
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		fields[name] = f.Type
	}
	return fields
}

func qualified(path string, fields map[string]reflect.Type) []string {
	var names []string
	for name := range fields {
		names = append(names, path+name)
	}
	return names
}

// invalidUTF8 returns the index of the first byte that is no UTF-8, or -1.
func invalidUTF8(b []byte) int {
	if utf8.Valid(b) {
		return -1
	}
	for i := 0; i < len(b); {
		r, size := utf8.DecodeRune(b[i:])
		if r == utf8.RuneError && size == 1 {
			return i
		}
		i += size
	}
	return -1
}

// loneSurrogate returns the index of the first \u escape in valid JSON that is
// one half of a UTF-16 pair without the other, or -1. In valid JSON a backslash
// stands only within strings and is followed by what it escapes.
func loneSurrogate(b []byte) int {
	for i := 0; ; {
		step := bytes.IndexByte(b[i:], '\\')
		if step < 0 {
			return -1
		}
		i += step
		switch unit := escapedUnit(b[i:]); {
		case unit < 0xD800 || unit > 0xDFFF:
			i += 2
		case unit <= 0xDBFF && escapedUnit(b[i+6:]) >= 0xDC00 && escapedUnit(b[i+6:]) <= 0xDFFF:
			i += 12
		default:
			return i
		}
	}
}

// escapedUnit returns the UTF-16 unit of the \uXXXX that b begins with, or -1.
func escapedUnit(b []byte) int {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return -1
	}
	unit, err := strconv.ParseUint(string(b[2:6]), 16, 16)
	if err != nil {
		return -1
	}
	return int(unit)
}
