package keyring

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
)

func TestPresentedKeyIsFoundOnlyIfItIsOne(t *testing.T) {
	path := writeFile(t, "p:admin:"+hashOf("secret-a")+"\nana:user:"+hashOf("secret-b")+":ana\n")
	r := New(t.Context(), path)
	if err := r.Reload(); err != nil {
		t.Fatal(err)
	}
	if k := r.Find("secret-a"); k == nil || k.Name != "p" || k.Role != RoleAdmin || k.User != "" {
		t.Errorf("the first key is %+v", k)
	}
	if k := r.Find("secret-b"); k == nil || k.Name != "ana" || k.Role != RoleUser || k.User != "ana" {
		t.Errorf("the second key is %+v", k)
	}
	// The hash opens nothing: who reads the file has no key.
	for _, wrong := range []string{"", "secret-", "secret-aa", "Secret-a", "secret-a\n", hashOf("secret-a"), "p"} {
		if k := r.Find(wrong); k != nil {
			t.Errorf("%q is %s's", wrong, k.Name)
		}
	}
}

func TestReloadTakesKeysInAndOutAndKeepsThemWhereTheFileIsBroken(t *testing.T) {
	path := writeFile(t, "a:admin:"+hashOf("1")+"\nb:user:"+hashOf("2")+":bob\nc:user:"+hashOf("3")+":cyn\n")
	r := New(t.Context(), path)
	if err := r.Reload(); err != nil {
		t.Fatal(err)
	}
	a, b, c := r.Find("1"), r.Find("2"), r.Find("3")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("a:admin:" + hashOf("1") + "\nnonsense\nd:admin:" + hashOf("4") + "\n")
	if err := r.Reload(); err == nil || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("a broken file: %v", err)
	}
	if r.Find("2") != b || b.Context.Err() != nil || r.Find("4") != nil || r.Len() != 3 {
		t.Error("a broken file has changed the keys")
	}
	// b is gone, c acts for another user, d is new.
	write("a:admin:" + hashOf("1") + "\nc:user:" + hashOf("3") + ":bob\nd:admin:" + hashOf("4") + "\n")
	if err := r.Reload(); err != nil {
		t.Fatal(err)
	}
	if r.Find("1") != a || a.Context.Err() != nil {
		t.Error("a key that stayed is another one now")
	}
	if r.Find("2") != nil || !errors.Is(context.Cause(b.Context), ErrRemoved) {
		t.Error("a removed key is still in force")
	}
	if now := r.Find("3"); now == nil || now.User != "bob" || !errors.Is(context.Cause(c.Context), ErrRemoved) {
		t.Errorf("a key that changed its user is %+v", now)
	}
	if r.Find("4") == nil {
		t.Error("a new key is not in force")
	}
	// The last key can be taken away too.
	write("# none\n")
	if err := r.Reload(); err != nil || r.Find("1") != nil || r.Len() != 0 {
		t.Errorf("an emptied file leaves keys in force: %v", err)
	}
}
