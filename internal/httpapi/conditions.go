package httpapi

import (
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"carrel/protocol"
)

// preconditions reads If-Match and If-None-Match of a request that changes something
// (RFC 9110, section 13.1): a function of the ETag of what is there, "" for nothing. nil
// where neither is given.
func preconditions(h http.Header) (func(etag string) error, error) {
	match, anyMatch, err := etags(h, "If-Match")
	if err != nil {
		return nil, err
	}
	none, anyNone, err := etags(h, "If-None-Match")
	if err != nil {
		return nil, err
	}
	mustMatch, mustNot := len(h.Values("If-Match")) > 0, len(h.Values("If-None-Match")) > 0
	if !mustMatch && !mustNot {
		return nil, nil //nolint:nilnil // no condition is a condition
	}
	return func(etag string) error {
		exists := etag != ""
		// A weak tag is none of ours, and matches nothing.
		matches := exists && (anyMatch || slices.Contains(match, etag))
		if mustMatch && !matches {
			return failed("If-Match: it is another than that, or not there")
		}
		if mustNot && exists && (anyNone || slices.Contains(none, etag)) {
			return failed("If-None-Match: it is there")
		}
		return nil
	}, nil
}

func failed(why string) error {
	return &answerError{error: protocol.Errorf(protocol.CodeConflict, "%s", why), status: http.StatusPreconditionFailed}
}

// etags reads a list of entity tags, or "*". Ours have no comma.
func etags(h http.Header, name string) (tags []string, isAny bool, err error) {
	for tag := range strings.SplitSeq(strings.Join(h.Values(name), ","), ",") {
		tag = strings.TrimSpace(tag)
		opaque := strings.TrimPrefix(tag, "W/")
		switch {
		case tag == "" && len(h.Values(name)) == 0:
		case tag == "*":
			isAny = true
		case len(opaque) >= 2 && opaque[0] == '"' && opaque[len(opaque)-1] == '"':
			tags = append(tags, tag)
		default:
			return nil, false, invalid(`%s: must be "*" or entity tags in quotes`, name)
		}
	}
	return tags, isAny, nil
}

// slowBody says what a reader of a body did not wait for.
const slowBody = "came too slowly: fewer than 64 KiB within the time for each"

// pacedReader reads a body of any length as long as it keeps coming: each 64 KiB of it
// may take only so long. It is the counterpart of pacedWriter.
type pacedReader struct {
	r    io.Reader
	ctl  *http.ResponseController
	slow time.Duration

	left int // of the piece whose time runs
}

func (p *pacedReader) Read(b []byte) (int, error) {
	if p.left <= 0 {
		// Only a recorder in a test has no read deadline, and it never blocks.
		_ = p.ctl.SetReadDeadline(time.Now().Add(p.slow))
		p.left = maxPieceBytes
	}
	n, err := p.r.Read(b[:min(len(b), p.left)])
	p.left -= n
	if errors.Is(err, io.EOF) {
		// From here on net/http reads, to see the client leave; that has time.
		_ = p.ctl.SetReadDeadline(time.Time{})
	}
	return n, err
}
