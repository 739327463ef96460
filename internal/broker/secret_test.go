package broker

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const canary = "sk-canary-7f3a9b"

func newSecret(t *testing.T, text string) Secret {
	t.Helper()
	var s Secret
	if err := s.UnmarshalText([]byte(text)); err != nil {
		t.Fatal(err)
	}
	return s
}

// leaks reports whether out shows the canary as text or in hex.
func leaks(out string) bool {
	return strings.Contains(out, canary) || strings.Contains(strings.ToLower(out), fmt.Sprintf("%x", canary))
}

func TestSecretIsRedactedByEveryVerbAndDepth(t *testing.T) {
	s := newSecret(t, canary)
	type exported struct{ Key Secret }
	type hidden struct {
		key  Secret
		keys []Secret
		more map[string]*Secret
	}
	values := map[string]any{
		"value":    s,
		"pointer":  &s,
		"exported": exported{s},
		"hidden":   hidden{s, []Secret{s}, map[string]*Secret{"a": &s}},
		"pointers": []*Secret{&s},
		"error":    fmt.Errorf("with %v: %w", s, errors.New("cause")),
	}
	for name, value := range values {
		t.Run(name, func(t *testing.T) {
			for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%d", "%t", "%p", "%T", "%c", "%!", "%e", "%w"} {
				if out := fmt.Sprintf(verb, value); leaks(out) {
					t.Errorf("%s leaks: %s", verb, out)
				}
			}
		})
	}
	if out := fmt.Sprintf("%v %+v %#v %s %q %x", s, s, s, s, s, s); out != strings.TrimSpace(strings.Repeat(redacted+" ", 6)) {
		t.Errorf("a secret prints as %s", out)
	}
}

func TestSecretIsRedactedByEncodersAndLogs(t *testing.T) {
	s := newSecret(t, canary)
	type config struct {
		Key  Secret
		Ptr  *Secret
		Keys map[string]Secret
	}
	c := config{s, &s, map[string]Secret{"a": s}}

	out, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	if leaks(string(out)) || strings.Count(string(out), redacted) != 3 {
		t.Errorf("json gives %s", out)
	}
	type element struct{ Key Secret }
	out, err = xml.Marshal(element{s})
	if err != nil {
		t.Fatal(err)
	}
	if leaks(string(out)) {
		t.Errorf("xml leaks: %s", out)
	}

	var log bytes.Buffer
	for _, handler := range []slog.Handler{slog.NewTextHandler(&log, nil), slog.NewJSONHandler(&log, nil)} {
		logger := slog.New(handler)
		logger.Info("key", "key", s, "ptr", &s, "config", c, "group", slog.GroupValue(slog.Any("key", s)))
		logger.With("key", s).Info("with")
	}
	if leaks(log.String()) || !strings.Contains(log.String(), redacted) {
		t.Errorf("slog gives %s", log.String())
	}
}

func TestSecretOpensInsideThisPackageOnly(t *testing.T) {
	if got := newSecret(t, canary).reveal(); got != canary {
		t.Errorf("reveal() = %q", got)
	}
	var zero Secret
	if zero.IsSet() || zero.reveal() != "" {
		t.Error("the zero value is set")
	}
	s := newSecret(t, canary)
	if err := s.UnmarshalText(nil); err != nil || s.IsSet() {
		t.Error("an empty text does not unset a secret")
	}
}

func TestSecretRefusesWhatNoHeaderCarriesWithoutRepeatingIt(t *testing.T) {
	for _, text := range []string{canary + "\n", canary + " x", canary + "\x00", canary + "é", strings.Repeat(canary, 2000)} {
		var s Secret
		err := s.UnmarshalText([]byte(text))
		if err == nil {
			t.Errorf("a text of %d bytes is taken", len(text))
		} else if leaks(err.Error()) {
			t.Errorf("the error leaks: %v", err)
		}
	}
}

func TestSecretFileIsReadWithoutTheSpaceAroundIt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	tests := []struct {
		name, text string
		ok         bool
	}{
		{"line", canary + "\n", true},
		{"bare", canary, true},
		{"windows line", canary + "\r\n", true},
		{"empty", " \n", false},
		{"two lines", canary + "\n" + canary, false},
		{"too long", strings.Repeat("a", maxSecretBytes+1), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			s, err := ReadSecretFile(path)
			if (err == nil) != tt.ok {
				t.Fatalf("error %v, want ok %t", err, tt.ok)
			}
			if tt.ok && s.reveal() != canary {
				t.Error("another secret than the file's")
			}
			if err != nil && leaks(err.Error()) {
				t.Errorf("the error leaks: %v", err)
			}
		})
	}
	if _, err := ReadSecretFile(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file gives %v", err)
	}
}
