package tracing

import (
	"errors"
	"fmt"
	"net/http"
	"net/textproto"
	"net/url"
	"strings"

	"golang.org/x/net/http/httpguts"
)

// Headers are what a receiver of spans wants to be sent, its key perhaps: they show
// themselves to nobody.
type Headers struct{ all http.Header }

const redacted = "[redacted]"

// UnmarshalText reads NAME=VALUE,… with values percent-encoded, as OpenTelemetry has it.
// An error repeats none of it.
func (h *Headers) UnmarshalText(text []byte) error {
	all := http.Header{}
	for i, pair := range strings.Split(string(text), ",") {
		if strings.TrimSpace(pair) == "" {
			continue
		}
		name, value, ok := strings.Cut(pair, "=")
		name = strings.TrimSpace(name)
		value, err := url.PathUnescape(strings.TrimSpace(value))
		if !ok || err != nil || !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value) {
			return fmt.Errorf("pair %d is not NAME=VALUE, of a header and percent-encoded", i+1)
		}
		if name = textproto.CanonicalMIMEHeaderKey(name); name == "Host" || name == "Content-Length" || name == "Content-Type" {
			return errors.New(name + " cannot be set")
		}
		all.Add(name, value)
	}
	h.all = all
	return nil
}

// IsSet reports whether there are any.
func (h Headers) IsSet() bool { return len(h.all) > 0 }

// String implements fmt.Stringer.
func (h Headers) String() string {
	if !h.IsSet() {
		return ""
	}
	return redacted
}

// GoString implements fmt.GoStringer.
func (h Headers) GoString() string { return h.String() }

// MarshalText implements encoding.TextMarshaler, and so what JSON and logs show.
func (h Headers) MarshalText() ([]byte, error) { return []byte(h.String()), nil }
