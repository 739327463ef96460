package carrel

import (
	"strings"
	"testing"
	"time"
)

func TestSizeIsBytesOrANumberWithAUnit(t *testing.T) {
	tests := map[string]Size{
		"0": 0, "1048576": 1 << 20, "512MiB": 512 << 20, "1GiB": 1 << 30, "1 gib": 1 << 30, "3KIB": 3 << 10, "2TiB": 2 << 40,
		"2TB": 2e12, "5kB": 5000, "7B": 7, "9223372036854775807": 1<<63 - 1,
	}
	for text, want := range tests {
		var s Size
		if err := s.UnmarshalText([]byte(text)); err != nil || s != want {
			t.Errorf("%q is %d, %v; want %d", text, s, err, want)
		}
	}
	for _, text := range []string{"", "MiB", "-1", "+1", "1.5GiB", "1e9", "1G", "1PiB", "1 Mi B", "0x10", "1_000", "9223372036854775808", "8388608TiB", "1\x00"} {
		var s Size
		if err := s.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is taken as %d", text, s)
		}
	}
}

func TestUIDRangeKeepsOffTheSystem(t *testing.T) {
	for text, want := range map[string]UIDRange{
		"200000:65536": {200000, 65536}, "1000:1": {1000, 1}, "10000:55534": {10000, 55534}, "65536:4294901759": {65536, 4294901759},
	} {
		var r UIDRange
		if err := r.UnmarshalText([]byte(text)); err != nil || r != want || r.String() != text {
			t.Errorf("%q is %v, %v", text, r, err)
		}
	}
	for _, text := range []string{"", "1", ":", "1000:", ":1", "1000:0", "999:5", "0:100000", "60000:5535", "65535:1", "65536:4294901760", "4294967295:1", "4294967296:1", "-1:1", "1000:1:1", "1000 :1"} {
		var r UIDRange
		if err := r.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is taken as %v", text, r)
		}
	}
}

func FuzzSize(f *testing.F) {
	for _, seed := range []string{"0", "512MiB", "1 gib", "9223372036854775807", "8388607TiB", "1e9", "-1B", "B"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var s Size
		if s.UnmarshalText([]byte(text)) != nil {
			return
		}
		if s < 0 {
			t.Fatalf("%q became %d", text, s)
		}
		var again Size
		if err := again.UnmarshalText([]byte(s.String())); err != nil || again != s {
			t.Fatalf("%q became %s, which became %d, %v", text, s, again, err)
		}
	})
}

func FuzzUIDRange(f *testing.F) {
	for _, seed := range []string{"200000:65536", "0:1", "4294967295:4294967295", "1000:1:1", ":"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var r UIDRange
		if r.UnmarshalText([]byte(text)) != nil {
			return
		}
		last := uint64(r.First) + uint64(r.Count) - 1
		if r.First < 1000 || last > 1<<32-2 || (uint64(r.First) <= 65534 && last >= 65534) {
			t.Fatalf("%q became %v", text, r)
		}
		var again UIDRange
		if err := again.UnmarshalText([]byte(r.String())); err != nil || again != r {
			t.Fatalf("%q became %v, which became %v, %v", text, r, again, err)
		}
	})
}

func FuzzConfigFile(f *testing.F) {
	for _, seed := range []string{"A=1\nB='x y'\n# c\n", "A=\"\\\"\\\\\"", "=", "A", "A='", "\r\n\r", "A=x # y", "A=\xff"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		lines, faults := parseConfigFile(text)
		if count := strings.Count(text, "\n") + 1; len(lines)+len(faults) > count {
			t.Fatalf("%d lines and %d faults from %d lines", len(lines), len(faults), count)
		}
		for _, line := range lines {
			if !isEnvName(line.key) || strings.ContainsAny(line.value, "\n\x00") {
				t.Fatalf("%q became %q=%q", text, line.key, line.value)
			}
			// What was read can be written down in quotes and read again.
			quoted := strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(line.value)
			again, _ := parseConfigFile(line.key + `="` + quoted + `"`)
			if len(again) != 1 || again[0].value != line.value {
				t.Fatalf("%q became %v", line.value, again)
			}
		}
	})
}

func TestRateLimitIsANumberAndATime(t *testing.T) {
	for text, want := range map[string]RateLimit{
		"100/s": {100, time.Second}, "1/m": {1, time.Minute}, "1000000/h": {1_000_000, time.Hour},
	} {
		var got RateLimit
		if err := got.UnmarshalText([]byte(text)); err != nil || got != want || got.String() != text {
			t.Errorf("%s is %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"0/s", "-1/s", "1000001/s", "1", "/s", "1/", "1/d", "1/s/s", "1.5/s", "1 / s", "off", "1e3/s", "99999999999999999999/s"} {
		var got RateLimit
		if err := got.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is taken as %v", text, got)
		}
	}
	for _, wrong := range []RateLimit{{1, 0}, {0, time.Second}, {-1, time.Second}, {1, 2 * time.Second}} {
		cfg := DefaultConfig()
		cfg.RateLimit = wrong
		if err := cfg.Validate(); err == nil {
			t.Errorf("%+v is valid", wrong)
		}
	}
}
