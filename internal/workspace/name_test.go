package workspace

import (
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

var safeName = regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*-[0-9a-f]{32}$`)

func checkName(t interface{ Fatalf(string, ...any) }, id string) {
	name := DirName(id)
	if !safeName.MatchString(name) || len(name) > 57 {
		t.Fatalf("the name of %q is %q", id, name)
	}
}

func TestDirNameShowsASlugOfTheID(t *testing.T) {
	tests := map[string]string{
		"alice": "alice", "Alice.B@example.org": "alice-b-example-org", "..": "user", "用戶": "user", "../../etc": "etc",
		"-a--b-": "a-b", "a": "a", strings.Repeat("ab", 100): strings.Repeat("ab", 12),
		strings.Repeat("a", 23) + "/b": strings.Repeat("a", 23) + "b", "user-1": "user-1",
	}
	for id, want := range tests {
		checkName(t, id)
		if got := slug(id); got != want {
			t.Errorf("slug(%q) = %q, want %q", id, got, want)
		}
	}
}

func TestIDsThatLookAlikeNeverShareADirectory(t *testing.T) {
	seen := make(map[string]string)
	for _, id := range []string{"a/b", "a_b", "a-b", "A-b", "a b", "a.b", "a", "A", "user", "", ".", "..", "é", "e\u0301", "a/", "/a", "a\x00"} {
		folded := strings.ToLower(DirName(id))
		if other, ok := seen[folded]; ok {
			t.Errorf("%q and %q share %s", id, other, folded)
		}
		seen[folded] = id
	}
}

func TestEveryIDHasASafeNameOfItsOwn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := rapid.String().Draw(t, "a"), rapid.String().Draw(t, "b")
		checkName(t, a)
		if a != b && strings.EqualFold(DirName(a), DirName(b)) {
			t.Fatalf("%q and %q share a name", a, b)
		}
	})
}

func FuzzDirName(f *testing.F) {
	f.Add("a/b", "a_b")
	f.Add("A", "a")
	f.Add("", "user")
	f.Add("..", strings.Repeat("x", 256))
	f.Fuzz(func(t *testing.T, a, b string) {
		checkName(t, a)
		if a != b && strings.EqualFold(DirName(a), DirName(b)) {
			t.Fatalf("%q and %q share a name", a, b)
		}
	})
}
