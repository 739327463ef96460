package broker

import (
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// keyFile is a key in a file and a clock beside it.
type keyFile struct {
	t    *testing.T
	path string
	key  *Key
	now  time.Time
	log  safeBuffer
}

func newKeyFile(t *testing.T, text string) *keyFile {
	f := &keyFile{t: t, path: filepath.Join(t.TempDir(), "key"), now: time.Unix(1e9, 0)}
	f.write(text)
	secret, err := ReadSecretFile(f.path)
	if err != nil {
		t.Fatal(err)
	}
	f.key = FileKey(f.path, secret)
	f.key.now = func() time.Time { return f.now }
	return f
}

func (f *keyFile) write(text string) {
	f.t.Helper()
	if err := os.WriteFile(f.path, []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
}

// replace writes another file and renames it over the first.
func (f *keyFile) replace(text string) {
	f.t.Helper()
	if err := os.WriteFile(f.path+".new", []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
	if err := os.Rename(f.path+".new", f.path); err != nil {
		f.t.Fatal(err)
	}
}

func (f *keyFile) want(text string) {
	f.t.Helper()
	if got := f.key.current(f.t.Context(), slog.New(slog.NewTextHandler(&f.log, nil))).reveal(); got != text {
		f.t.Errorf("the key is %q, want %q", got, text)
	}
}

func (f *keyFile) pass() { f.now = f.now.Add(lookAgain) }

func TestKeyFileIsReadAgainWhenItChanges(t *testing.T) {
	f := newKeyFile(t, "key-1\n")
	f.want("key-1")
	f.replace("key-2") // of the same size, and perhaps of the same time
	f.want("key-1")    // not looked at again so soon
	f.pass()
	f.want("key-2")
	f.write("key-three")
	f.pass()
	f.want("key-three")
	if leaked := f.log.String(); strings.Contains(leaked, "key-") {
		t.Errorf("the log has the key: %s", leaked)
	}
}

func TestKeyThatCameBeforeTheFirstRequestIsUsed(t *testing.T) {
	f := newKeyFile(t, "key-1\n")
	f.replace("key-2")
	f.want("key-2")
}

func TestBrokenKeyFileKeepsTheLastGoodKey(t *testing.T) {
	f := newKeyFile(t, "key-1")
	f.want("key-1")
	for _, broken := range []func(){
		func() { f.replace("") },
		func() { f.replace("two\nlines") },
		func() { _ = os.Remove(f.path) },
		func() { f.replace(strings.Repeat("x", maxSecretBytes+1)) },
	} {
		broken()
		f.pass()
		f.want("key-1")
		f.pass()
		f.want("key-1")
	}
	if n := strings.Count(f.log.String(), "last good key"); n != 1 {
		t.Errorf("%d lines of log, one is enough:\n%s", n, &f.log)
	}
	f.replace("key-2")
	f.pass()
	f.want("key-2")
	_ = os.Remove(f.path)
	f.pass()
	f.want("key-2")
	if n := strings.Count(f.log.String(), "last good key"); n != 2 {
		t.Errorf("the second time is not told:\n%s", &f.log)
	}
}

func TestNextRequestGoesOutWithTheNewKey(t *testing.T) {
	got := make(chan string, 1)
	f := newKeyFile(t, "key-1")
	r := newRig(t, func(w http.ResponseWriter, r *http.Request) {
		got <- r.Header.Get("X-Api-Key")
		message(w, r)
	}, func(o *Options) { o.Key = f.key })
	for i := 1; i <= 3; i++ {
		f.replace(fmt.Sprintf("key-%d", i))
		f.pass()
		r.post(t)
		if key := <-got; key != fmt.Sprintf("key-%d", i) {
			t.Errorf("request %d went out with %s", i, key)
		}
	}
}
