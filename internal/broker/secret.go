package broker

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
)

// redacted stands for every secret that is printed.
const redacted = "[redacted]"

// maxSecretBytes bounds a secret. Keys in use have about 100 bytes.
const maxSecretBytes = 16 << 10

// Secret is a key that prints as "[redacted]" however it is printed, and that
// only this package can open. The zero value is unset. It cannot be compared
// with ==, so that no log of a comparison can show it either.
//
// The text is held by a closure, not in a field: what walks values by reflection
// without asking their methods (fmt on an unexported field, %p, a deep dump)
// finds the address of a function.
type Secret struct {
	open func() string
}

// UnmarshalText takes a secret in; an empty text unsets it. The error never
// repeats any of the text.
func (s *Secret) UnmarshalText(text []byte) error {
	if len(text) > maxSecretBytes {
		return fmt.Errorf("%d bytes, at most %d are allowed", len(text), maxSecretBytes)
	}
	for _, c := range text {
		// What is outside of printable ASCII could not be sent in a header.
		if c <= ' ' || c > '~' {
			return errors.New("must be printable ASCII without spaces")
		}
	}
	*s = Secret{}
	if len(text) > 0 {
		value := string(text)
		s.open = func() string { return value }
	}
	return nil
}

// ReadSecretFile reads a secret from a file of its own, such as a mounted one;
// white space around it is dropped. A file that holds nothing is an error.
func ReadSecretFile(path string) (Secret, error) {
	file, err := os.Open(path)
	if err != nil {
		return Secret{}, fmt.Errorf("read secret: %w", err)
	}
	defer func() { _ = file.Close() }()
	// The room beyond the limit is for white space around the secret, and lets a
	// file that is too long be seen as such.
	text, err := io.ReadAll(io.LimitReader(file, maxSecretBytes+64))
	if err != nil {
		return Secret{}, fmt.Errorf("read secret: %w", err)
	}
	var s Secret
	if err := s.UnmarshalText([]byte(strings.TrimSpace(string(text)))); err != nil {
		return Secret{}, fmt.Errorf("read secret: %s: %w", path, err)
	}
	if !s.IsSet() {
		return Secret{}, fmt.Errorf("read secret: %s is empty", path)
	}
	return s, nil
}

// IsSet reports whether there is a secret.
func (s Secret) IsSet() bool { return s.open != nil }

// reveal returns the secret itself; "" while unset.
func (s Secret) reveal() string {
	if s.open == nil {
		return ""
	}
	return s.open()
}

// String implements [fmt.Stringer].
func (Secret) String() string { return redacted }

// GoString implements [fmt.GoStringer].
func (Secret) GoString() string { return redacted }

// Format implements [fmt.Formatter], so that no verb gets past it.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// LogValue implements [slog.LogValuer].
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText implements [encoding.TextMarshaler].
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// MarshalJSON implements [json.Marshaler].
func (Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }
