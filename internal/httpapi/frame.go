package httpapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"

	"carrel/protocol"
)

// errSeq says what a seq looks like.
var errSeq = errors.New("must be the decimal number of an event, 0 or more")

// parseSeq reads the seq of an event: digits alone, of an int64.
func parseSeq(s string) (int64, error) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, errSeq
	}
	seq, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0, errSeq
	}
	return seq, nil
}

// appendEvent appends the SSE frame of an event:
//
//	id: <seq>
//	event: <TYPE>
//	data: {"run_id","seq","time","type","data"}
//	<blank line>
//
// It writes the envelope itself, since a general encoder costs several times as
// much (BenchmarkAppendEvent). No line break can enter a frame: names are
// checked, and data that holds one is compacted, as JSON knows raw line breaks
// only between its tokens. After an error b is as long as before.
func appendEvent(b []byte, e protocol.Event) ([]byte, error) {
	if !isName(string(e.Type)) || !isName(e.RunID) {
		return b, fmt.Errorf("event %d of %s: malformed type or run id", e.Seq, quote(e.RunID))
	}
	before := len(b)
	b = append(b, "id: "...)
	b = strconv.AppendInt(b, e.Seq, 10)
	b = append(b, "\nevent: "...)
	b = append(b, e.Type...)
	b = append(b, "\ndata: {\"run_id\":\""...)
	b = append(b, e.RunID...)
	b = append(b, "\",\"seq\":"...)
	b = strconv.AppendInt(b, e.Seq, 10)
	b = append(b, ",\"time\":\""...)
	b = e.Time.AppendFormat(b, time.RFC3339Nano)
	b = append(b, "\",\"type\":\""...)
	b = append(b, e.Type...)
	b = append(b, "\",\"data\":"...)
	b, err := appendData(b, e.Data)
	if err != nil {
		return b[:before], fmt.Errorf("event %d of %s: %w", e.Seq, e.RunID, err)
	}
	return append(b, "}\n\n"...), nil
}

// appendFrame appends a frame without an id: it cannot be resumed after.
func appendFrame(b []byte, event protocol.EventType, data any) ([]byte, error) {
	if !isName(string(event)) {
		return b, fmt.Errorf("malformed event type %s", quote(string(event)))
	}
	encoded, err := json.Marshal(data) // compact: no raw line breaks
	if err != nil {
		return b, fmt.Errorf("encode %s: %w", event, err)
	}
	b = append(b, "event: "...)
	b = append(b, event...)
	b = append(b, "\ndata: "...)
	b = append(b, encoded...)
	return append(b, "\n\n"...), nil
}

// appendComment appends a comment of one line, which clients skip.
func appendComment(b []byte, text string) []byte {
	b = append(b, ": "...)
	for _, r := range text {
		if unicode.IsControl(r) {
			r = ' '
		}
		b = append(b, string(r)...)
	}
	return append(b, "\n\n"...)
}

// appendData appends JSON on one line; no data at all is an empty object.
func appendData(b []byte, data json.RawMessage) ([]byte, error) {
	if len(data) == 0 {
		return append(b, "{}"...), nil
	}
	if bytes.IndexByte(data, '\n') < 0 && bytes.IndexByte(data, '\r') < 0 {
		return append(b, data...), nil
	}
	compact := bytes.NewBuffer(b)
	if err := json.Compact(compact, data); err != nil {
		return b, fmt.Errorf("data: %w", err)
	}
	return compact.Bytes(), nil
}

// isName reports whether s is a plain name, which needs quoting nowhere.
func isName(s string) bool {
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '_', c == '-', c == '.':
		default:
			return false
		}
	}
	return s != ""
}
