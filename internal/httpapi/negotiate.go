package httpapi

import (
	"mime"
	"net/http"
	"strconv"
	"strings"

	"carrel/protocol"
)

// form is how an answer to a POST is given.
type form int

const (
	formResult form = iota // JSON, when it is there
	formEvents             // SSE, as it comes
)

// chooseForm picks the form by the Accept header. SSE is for who names it
// (text/event-stream or text/*) and does not like JSON better; a client that
// takes anything gets JSON.
func chooseForm(h http.Header) (form, error) {
	accept := strings.Join(h.Values("Accept"), ",")
	if strings.TrimSpace(accept) == "" {
		return formResult, nil
	}
	stream, streamNamed := quality(accept, "text", "event-stream")
	result, _ := quality(accept, "application", "json")
	switch {
	case stream > 0 && (result == 0 || streamNamed && stream >= result):
		return formEvents, nil
	case result > 0:
		return formResult, nil
	}
	return 0, &answerError{
		error:  protocol.Errorf(protocol.CodeInvalidRequest, "Accept: must allow application/json or text/event-stream"),
		status: http.StatusNotAcceptable,
	}
}

// quality returns the weight that an Accept header gives a media type: that of
// the most specific range that covers it (RFC 9110, section 12.5.1). named
// tells that this range is the type itself. Ranges that are malformed count as
// not given.
func quality(accept, mainType, subType string) (weight float64, named bool) {
	best := 0
	for entry := range strings.SplitSeq(accept, ",") {
		media, params, err := mime.ParseMediaType(entry)
		if err != nil {
			continue
		}
		specific := 0
		switch media {
		case mainType + "/" + subType:
			specific = 3
		case mainType + "/*":
			specific = 2
		case "*/*":
			specific = 1
		}
		if specific <= best {
			continue
		}
		q := 1.0
		if given, ok := params["q"]; ok {
			q, err = strconv.ParseFloat(given, 64)
			if err != nil || !(q >= 0 && q <= 1) {
				continue
			}
		}
		best, weight = specific, q
	}
	return weight, best == 3
}

// prefersAsync reports whether a Prefer header (RFC 7240) asks for an answer
// before the work is done.
func prefersAsync(h http.Header) bool {
	for entry := range strings.SplitSeq(strings.Join(h.Values("Prefer"), ","), ",") {
		token, _, _ := strings.Cut(entry, ";")
		if strings.EqualFold(strings.TrimSpace(token), "respond-async") {
			return true
		}
	}
	return false
}

// idempotencyKey reads the header of that name; empty where there is none.
func idempotencyKey(h http.Header) (string, error) {
	given := h.Values("Idempotency-Key")
	if len(given) == 0 {
		return "", nil
	}
	key := given[0]
	if len(given) > 1 || key == "" || len(key) > maxIdempotencyBytes {
		return "", invalid("Idempotency-Key: must be given once, with 1 to %d characters", maxIdempotencyBytes)
	}
	for i := range len(key) {
		if key[i] < '!' || key[i] > '~' {
			return "", invalid("Idempotency-Key: only visible ASCII characters are allowed")
		}
	}
	return key, nil
}

// resumePoint reads the seq after which a client wants events: Last-Event-ID,
// which an EventSource sends by itself when it reconnects and which is then
// newer than the ?after= still in its URL, else ?after=, else 0. Both must be
// well formed.
func resumePoint(r *http.Request) (int64, error) {
	var after int64
	if query := r.URL.Query(); query.Has("after") {
		seq, err := parseSeq(query.Get("after"))
		if err != nil {
			return 0, invalid("query parameter after: %w", err)
		}
		after = seq
	}
	given := r.Header.Values("Last-Event-ID")
	if len(given) > 1 {
		return 0, invalid("Last-Event-ID: given %d times", len(given))
	}
	if len(given) == 1 {
		seq, err := parseSeq(given[0])
		if err != nil {
			return 0, invalid("Last-Event-ID: %w", err)
		}
		after = seq
	}
	return after, nil
}
