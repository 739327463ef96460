package keyring

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestFileGivesItsKeys(t *testing.T) {
	text := "# who may call\n\n  # indented\nproduct:admin:" + hashOf("a") + "\r\n" +
		"ana-1:user:" + hashOf("b") + ":ana\n" +
		"odd:user:" + strings.ToUpper(hashOf("c")) + ": x:y # ä \n" +
		"last:admin:" + hashOf("d")
	keys, faults := parse([]byte(text))
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	want := []Key{
		{Name: "product", Role: RoleAdmin},
		{Name: "ana-1", Role: RoleUser, User: "ana"},
		{Name: "odd", Role: RoleUser, User: " x:y # ä "},
		{Name: "last", Role: RoleAdmin},
	}
	if diff := cmp.Diff(want, keys, cmpopts.IgnoreUnexported(Key{})); diff != "" {
		t.Error(diff)
	}
	for i, secret := range []string{"a", "b", "c", "d"} {
		if !strings.Contains(keys[i].line(), hashOf(secret)) {
			t.Errorf("key %d has not the hash of its line", i)
		}
	}
}

func TestEveryFaultIsToldWithItsLineAndWithoutWhatStandsThere(t *testing.T) {
	const secret = "carrel_c2VjcmV0" // where people might put it
	hash := hashOf("a")
	lines := []struct{ line, reason string }{
		{"ok:admin:" + hash, ""},
		{secret, "must be name:role:sha256-hex-of-the-key[:user]"},
		{secret + ":admin", "must be name:role"},
		{secret + "!:admin:" + hash, "name: must be 1 to 64"},
		{":admin:" + hash, "name: must be"},
		{" sp:admin:" + hashOf("b"), "name: must be"},
		{strings.Repeat("n", 65) + ":admin:" + hashOf("b"), "name: must be"},
		{"local:admin:" + hashOf("b"), `name: "local"`},
		{"r1:" + secret + ":" + hashOf("b"), "role: must be admin or user"},
		{"r2:Admin:" + hashOf("b"), "role: must be"},
		{"r3::" + hashOf("b"), "role: must be"},
		{"k1:admin:" + secret, "key: must be its SHA-256"},
		{"k2:admin:" + hash + "00", "key: must be"},
		{"k3:admin:" + hash[:62], "key: must be"},
		{"k4:admin:" + hashOf("b") + " ", "key: must be"},
		{"u1:admin:" + hashOf("b") + ":ana", "user: an admin key acts for everyone"},
		{"u2:admin:" + hashOf("b") + ":", "a colon too many"},
		{"u3:user:" + hashOf("b"), "user: a user key needs"},
		{"u4:user:" + hashOf("b") + ":", "user: a user key needs"},
		{"u5:user:" + hashOf("b") + ":a\x00b", "user: must be 1 to 256"},
		{"u6:user:" + hashOf("b") + ":" + strings.Repeat("u", 257), "user: must be 1 to 256"},
		{"u7:user:" + hashOf("b") + ":\xff", "must be name:role"},
		{"ok:admin:" + hashOf("c"), "name: the same as on line 1"},
		{"other:user:" + hash + ":ana", "key: the same as on line 1"},
	}
	var text strings.Builder
	for _, l := range lines {
		text.WriteString(l.line + "\n")
	}
	_, err := Read(writeFile(t, text.String()))
	e, ok := err.(*FileError) //nolint:errorlint // what Read promises
	if !ok {
		t.Fatal(err)
	}
	if len(e.Faults) != len(lines)-1 {
		t.Fatalf("%d lines at fault, want %d: %v", len(e.Faults), len(lines)-1, err)
	}
	for i, f := range e.Faults {
		if f.Line != i+2 || !strings.Contains(f.Reason, lines[i+1].reason) {
			t.Errorf("%q gives %v, want %q", lines[i+1].line, f, lines[i+1].reason)
		}
	}
	for _, not := range []string{secret, hash, hashOf("b"), hash[:16]} {
		if strings.Contains(err.Error(), not) {
			t.Errorf("the error repeats %q: %v", not, err)
		}
	}
}

// What is taken is given back as the same line, so that an edit changes nothing
// else; and nothing but comments is passed over.
func FuzzLinesAreTakenAsTheyStandOrRefused(f *testing.F) {
	for _, seed := range []string{"a:admin:" + hashOf("a"), "b:user:" + hashOf("b") + ":x:y", "# c", "", "\r", "a:user:\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, line string) {
		if strings.Contains(line, "\n") {
			return
		}
		keys, faults := parse([]byte(line))
		switch {
		case isComment([]byte(line)):
			if len(keys)+len(faults) > 0 {
				t.Errorf("a comment gives %v %v", keys, faults)
			}
		case len(keys)+len(faults) != 1:
			t.Errorf("one line gives %v %v", keys, faults)
		case len(keys) == 1:
			given := strings.TrimSuffix(line, "\r")
			if got := keys[0].line(); !strings.EqualFold(got, given) || keys[0].Name != nameOf([]byte(line)) {
				t.Errorf("%q is taken as %q", line, got)
			}
			if (keys[0].Role == RoleUser) != (keys[0].User != "") {
				t.Errorf("%q has a role that does not fit its user", line)
			}
		}
	})
}
