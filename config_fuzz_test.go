package carrel

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// FuzzConfiguration loads a file, an environment and flags together, a key of the
// model API among them. Whatever they hold: the key is printed nowhere; each value
// that is refused when it stands alone is named; what is taken is taken again from
// what is shown of it, as it was.
func FuzzConfiguration(f *testing.F) {
	for _, seed := range [][3]string{
		{"", "", ""},
		{"SANDBOX_MAX_WORKERS=0\nSANDBOX_IDLE_TIMEOUT=x\nSANDBOX_ISOLATION=lax\nSANDBOX_MAX_WORKER=1", "SANDBOX_CPU_LIMIT=NaN\nCARREL_LOG_LEVEL=loud", "SANDBOX_PIDS_LIMIT=-1"},
		{"SANDBOX_REQUIRE=quota, cgroup # c\nSANDBOX_MEMORY_LIMIT='1 GiB'", "SANDBOX_ALLOWED_ENV_VARS=A,,B\nSANDBOX_UID_RANGE=1:1", "SANDBOX_AGENT=claude"},
		{"ANTHROPIC_BASE_URL=http://a:b@c/", "CARREL_DATABASE_URL=postgres://u:p@h/d", "CARREL_LISTEN=[::]:1"},
		{"A=\"", "SANDBOX_ALLOWED_ENV_VARS=ANTHROPIC_API_KEY,AWS_X", "SANDBOX_MAX_WORKERS=1e9"},
		{"CARREL_BUDGET_RUN_USD=1e400\nSANDBOX_CPU_LIMIT=0x1p-2", "SANDBOX_FILE_TTL=-1h\nSANDBOX_DISK_QUOTA=9223372036854775807", "CARREL_URL=x"},
	} {
		f.Add(seed[0], seed[1], seed[2], "", "")
		f.Add(seed[0], seed[1], seed[2], "\"", "\x7f")
	}
	f.Fuzz(func(t *testing.T, file, environ, flags, before, after string) {
		const keyName = "ANTHROPIC_API_KEY="
		secret := keyName + before + keyCanary + after
		if strings.Contains(file+environ+flags, "_FILE") || strings.Contains(environ, keyConfig) {
			return // other files, which may be anything
		}
		path := filepath.Join(t.TempDir(), "carrel.env")
		if err := os.WriteFile(path, []byte(file+"\n"+secret+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		overrides := make(map[string]string)
		for line := range strings.SplitSeq(flags, "\n") {
			key, value, _ := strings.Cut(line, "=")
			overrides[key] = value
		}
		for _, src := range []ConfigSource{
			{File: path, Environ: strings.Split(environ, "\n"), Overrides: overrides},
			{Environ: append(strings.Split(environ, "\n"), secret), Overrides: overrides},
		} {
			cfg, err := LoadConfig(src)
			printed := fmt.Sprintf("%v %+v %#v %v %v", err, cfg, cfg, cfg.Redacted(), cfg.Warnings())
			if strings.Contains(printed, keyCanary) {
				t.Fatalf("the key is printed: %s", printed)
			}
			if err == nil {
				checkLoadsAgain(t, cfg)
			}
			for key, value := range overrides {
				checkNamed(t, err, key, value)
			}
		}
	})
}

// checkLoadsAgain loads what is shown of a configuration.
func checkLoadsAgain(t *testing.T, cfg Config) {
	t.Helper()
	values := cfg.Redacted()
	again, err := LoadConfig(ConfigSource{Overrides: values})
	if err != nil {
		t.Fatalf("%v from %v", err, values)
	}
	if diff := cmp.Diff(values, again.Redacted()); diff != "" {
		t.Fatalf("loaded again (-first +second):\n%s", diff)
	}
}

// checkNamed holds that a value at fault by itself is named in the error of the whole.
func checkNamed(t *testing.T, err error, key, value string) {
	t.Helper()
	if slices.Contains([]string{"SANDBOX_AGENT", "SANDBOX_WARM_WORKERS", "SANDBOX_UID_RANGE"}, key) {
		return // right or wrong by what others are
	}
	names := func(err error) bool {
		e, ok := errors.AsType[*ConfigError](err)
		return ok && hasFault(e.Faults, key)
	}
	_, alone := LoadConfig(ConfigSource{Overrides: map[string]string{key: value}})
	if alone != nil && names(alone) && !names(err) {
		t.Errorf("%q=%q is at fault alone (%v), and not named in %v", key, value, alone, err)
	}
}
