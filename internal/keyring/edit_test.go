package keyring

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"carrel/protocol"
)

func TestAddedKeySignsInAndItsFileHoldsOnlyTheHash(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys")
	secret, err := Add(path, Key{Name: "product", Role: RoleAdmin})
	if err != nil {
		t.Fatal(err)
	}
	random, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(secret, secretPrefix))
	if err != nil || len(random) != 32 || !strings.HasPrefix(secret, secretPrefix) {
		t.Errorf("the key is %d bytes, %v", len(random), err)
	}
	r := New(t.Context(), path)
	if err := r.Reload(); err != nil {
		t.Fatal(err)
	}
	if k := r.Find(secret); k == nil || k.Name != "product" {
		t.Error("it does not sign in")
	}
	text, err := os.ReadFile(path)
	if err != nil || string(text) != "product:admin:"+hashOf(secret)+"\n" {
		t.Errorf("the file is %q, %v", text, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestEditLeavesTheRestOfTheFileAsItIs(t *testing.T) {
	before := "# ours\n\na:admin:" + hashOf("1") + "\n# of b\nb:user:" + hashOf("2") + ":bob" // no newline
	path := writeFile(t, before)
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	secret, err := Add(path, Key{Name: "c", Role: RoleUser, User: "x: y"})
	if err != nil {
		t.Fatal(err)
	}
	check := func(want string) {
		t.Helper()
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, string(text)); diff != "" {
			t.Error(diff)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o640 {
			t.Errorf("mode %v, %v", info.Mode(), err)
		}
	}
	check(before + "\nc:user:" + hashOf(secret) + ":x: y\n")
	if err := Remove(path, "a"); err != nil {
		t.Fatal(err)
	}
	check("# ours\n\n# of b\nb:user:" + hashOf("2") + ":bob\nc:user:" + hashOf(secret) + ":x: y\n")

	for _, name := range []string{"a", "#", "", "# of b"} {
		if err := Remove(path, name); protocol.CodeOf(err) != protocol.CodeNotFound {
			t.Errorf("remove %q: %v", name, err)
		}
	}
	if _, err := Add(path, Key{Name: "b", Role: RoleAdmin}); protocol.CodeOf(err) != protocol.CodeConflict {
		t.Errorf("a name that is taken: %v", err)
	}
	for _, key := range []Key{{Name: "d", Role: RoleUser}, {Name: "d", Role: RoleAdmin, User: "u"}, {Name: "d:e", Role: RoleAdmin}, {Name: "d", Role: "root"}, {Name: "d", Role: RoleUser, User: "a\nx:admin:" + hashOf("x")}} {
		if _, err := Add(path, key); err == nil {
			t.Errorf("%+v is added", key)
		}
	}
	check("# ours\n\n# of b\nb:user:" + hashOf("2") + ":bob\nc:user:" + hashOf(secret) + ":x: y\n")
}

func TestBrokenFileIsNotEdited(t *testing.T) {
	path := writeFile(t, "nonsense\n")
	if _, err := Add(path, Key{Name: "a", Role: RoleAdmin}); err == nil || !strings.Contains(err.Error(), "line 1") {
		t.Errorf("error %v", err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "nonsense\n" {
		t.Errorf("the file is %q, %v", text, err)
	}
}

func TestEditGoesToWhatALinkLeadsTo(t *testing.T) {
	path := writeFile(t, "")
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if _, err := Add(link, Key{Name: "a", Role: RoleAdmin}); err != nil {
		t.Fatal(err)
	}
	if keys, err := Read(path); err != nil || len(keys) != 1 {
		t.Errorf("%v, %v", keys, err)
	}
	if info, err := os.Lstat(link); err != nil || info.Mode().Type() != os.ModeSymlink {
		t.Errorf("the link is %v, %v", info.Mode(), err)
	}
}

func TestKeysAddedAndRemovedAtOnceAreAllThere(t *testing.T) {
	path := writeFile(t, "old0:admin:"+hashOf("0")+"\nold1:admin:"+hashOf("1")+"\n")
	var wg sync.WaitGroup
	const added = 20
	for i := range added {
		wg.Go(func() {
			if _, err := Add(path, Key{Name: fmt.Sprintf("new%d", i), Role: RoleAdmin}); err != nil {
				t.Error(err)
			}
		})
	}
	for i := range 2 {
		wg.Go(func() {
			if err := Remove(path, fmt.Sprintf("old%d", i)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if keys, err := Read(path); err != nil || len(keys) != added {
		t.Errorf("%d keys, want %d: %v", len(keys), added, err)
	}
	left, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(left) != 1 {
		t.Errorf("the directory holds %v, %v", left, err)
	}
}
