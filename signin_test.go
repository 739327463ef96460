package carrel

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"carrel/internal/httpapi"
	"carrel/internal/keyring"
)

func keyLine(name, role, secret, user string) string {
	sum := sha256.Sum256([]byte(secret))
	line := name + ":" + role + ":" + hex.EncodeToString(sum[:])
	if user != "" {
		line += ":" + user
	}
	return line + "\n"
}

func TestEveryFaultOfTheKeysFileIsReportedWithTheOthers(t *testing.T) {
	keys := writeFile(t, "# ours\n"+keyLine("a", "admin", "1", "")+"a:admin:"+keyCanary+"\n"+keyLine("b", "user", "2", ""))
	got := mustFail(t, ConfigSource{Environ: []string{"CARREL_API_KEYS_FILE=" + keys, "CARREL_LISTEN=0.0.0.0:1", "CARREL_RATE_LIMIT=fast"}})
	want := []string{
		"CARREL_API_KEYS_FILE=" + keys + ": line 3: key: must be its SHA-256 as 64 hex digits, never the key itself (from environment)",
		"CARREL_API_KEYS_FILE=" + keys + ": line 4: user: a user key needs the user that it acts for (from environment)",
		"CARREL_RATE_LIMIT=fast: must be a number of requests and a time, such as 100/s (allowed: N/s, N/m or N/h with N from 1 to 1000000; from environment)",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if err := os.Chmod(keys, 0o666); err != nil {
		t.Fatal(err)
	}
	got = mustFail(t, ConfigSource{Environ: []string{"CARREL_API_KEYS_FILE=" + keys}})
	if len(got) != 1 || !strings.Contains(got[0], "has mode 0666") {
		t.Errorf("a file that all may write gives %q", got)
	}
}

func TestWithKeysEveryAddressIsListenedOnAndTheClearIsWarnedOf(t *testing.T) {
	keys := "CARREL_API_KEYS_FILE=" + writeFile(t, keyLine("a", "admin", "1", ""))
	chain, key := writeCertificate(t, "one")
	for _, tt := range []struct {
		listen string
		tls    bool
		warns  bool
	}{
		{"127.0.0.1:1", false, false},
		{"0.0.0.0:1", false, true},
		{":1", false, true},
		{"carrel.example:1", false, true},
		{"0.0.0.0:1", true, false},
	} {
		environ := []string{keys, "CARREL_LISTEN=" + tt.listen}
		if tt.tls {
			environ = append(environ, "CARREL_TLS_CERT_FILE="+chain, "CARREL_TLS_KEY_FILE="+key)
		}
		cfg := mustLoad(t, ConfigSource{Environ: environ})
		if warnings := strings.Join(cfg.Warnings(), "\n"); strings.Contains(warnings, "in the clear") != tt.warns {
			t.Errorf("%+v warns %q", tt, warnings)
		}
	}
}

func TestCallerIsWhatItsKeySays(t *testing.T) {
	o := &Orchestrator{keys: keyring.New(t.Context(), writeFile(t, keyLine("p", "admin", "1", "")+keyLine("ana", "user", "2", "ana")))}
	if err := o.keys.Reload(); err != nil {
		t.Fatal(err)
	}
	if c, ok := o.identify("1"); !ok || c.Name != "p" || !c.Admin || c.User != "" || c.Revoked == nil {
		t.Errorf("the admin is %+v", c)
	}
	if c, ok := o.identify("2"); !ok || c.Name != "ana" || c.Admin || c.User != "ana" {
		t.Errorf("the user is %+v", c)
	}
	if c, ok := o.identify("3"); ok || c != (httpapi.Caller{}) {
		t.Errorf("nobody is %+v", c)
	}
	if keyring.LocalName != httpapi.LocalCaller {
		t.Error("a key may have the name of those who have none")
	}
}

func TestChangedFilesAreReadAgainAndBrokenOnesToldOnce(t *testing.T) {
	path := writeFile(t, keyLine("a", "admin", "1", ""))
	log := &heard{}
	synctest.Test(t, func(t *testing.T) {
		o := &Orchestrator{
			cfg:  Config{APIKeysFile: path},
			log:  slog.New(slog.NewTextHandler(log, nil)),
			root: t.Context(),
		}
		if err := o.openKeys(); err != nil {
			t.Fatal(err)
		}
		go o.followFiles(t.Context())
		pass := func() {
			time.Sleep(3 * lookInterval) //nolint:forbidigo // the bubble's clock, exactly
			synctest.Wait()              // the last look began at the same moment
		}
		write := func(text string) {
			t.Helper()
			if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(path+".new", path); err != nil {
				t.Fatal(err)
			}
			pass()
		}
		has := func(key string) bool { return o.keys.Find(key) != nil }

		pass()
		if log.String() != "" {
			t.Errorf("nothing has changed, and the log says\n%s", log)
		}
		if write(keyLine("b", "admin", "2", "")); has("1") || !has("2") {
			t.Error("a changed file is not in force")
		}
		if write("nonsense " + keyCanary); !has("2") {
			t.Error("a broken file has taken the keys away")
		}
		if n := strings.Count(log.String(), "level=ERROR"); n != 1 || !strings.Contains(log.String(), "line 1") || strings.Contains(log.String(), keyCanary) {
			t.Errorf("a broken file is told %d times:\n%s", n, log)
		}
		if o.Reload(t.Context()); strings.Count(log.String(), "level=ERROR") != 2 {
			t.Errorf("who asks is not told of the fault:\n%s", log)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if pass(); !has("2") {
			t.Error("a file that is gone has taken the keys away")
		}
		if write("# none\n"); has("2") || !strings.Contains(log.String(), "nobody can sign in") {
			t.Errorf("an emptied file leaves a key in force, or says nothing:\n%s", log)
		}
		if write(keyLine("c", "admin", "3", "")); !has("3") {
			t.Error("a mended file is not in force")
		}
	})
}

// heard is a log that is written to while it is read.
type heard struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (h *heard) Write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.text.Write(p)
}

func (h *heard) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.text.String()
}
