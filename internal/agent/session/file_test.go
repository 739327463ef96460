package session

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"carrel/protocol"
)

type rawBlock = json.RawMessage

func TestListReadForkDelete(t *testing.T) {
	home, dir := newHome(t)
	s := open(t, NewStore(home), "old")
	must(t, s.Append("run_1", text(User, "a"), text(Assistant, "b")))
	s.Close()
	file := filepath.Join(dir, "sessions", "old.jsonl")
	must(t, os.WriteFile(file, []byte(read(t, file)+"torn"), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "sessions", "new.fork"), []byte("what a killed fork left"), 0o600))

	must(t, forked(home, "old", "new"))
	if got := read(t, filepath.Join(dir, "sessions", "new.jsonl")); got+"torn" != read(t, file) {
		t.Errorf("the fork has %q", got)
	}
	if err := forked(home, "old", "new"); protocol.CodeOf(err) != protocol.CodeConflict {
		t.Errorf("a fork over another session: %v", err)
	}
	infos, err := List(home)
	if err != nil || len(infos) != 2 {
		t.Fatalf("%v %v", infos, err)
	}
	must(t, Delete(home, "old"))
	for _, err := range []error{Delete(home, "old"), forked(home, "old", "x")} {
		if protocol.CodeOf(err) != protocol.CodeNotFound {
			t.Errorf("%v, want not_found", err)
		}
	}
	if _, err := Read(home, "old"); protocol.CodeOf(err) != protocol.CodeNotFound {
		t.Errorf("%v, want not_found", err)
	}
	lines, err := Read(home, "new")
	if err != nil || len(lines) != 2 {
		t.Errorf("%d lines, %v", len(lines), err)
	}
}

// What stands in a home is its sandbox's, and the host reads it. Each trap here
// would make a host that opens by path leak another's file, or hang.
func TestTrapsInAHome(t *testing.T) {
	home, dir := newHome(t)
	outside := filepath.Join(t.TempDir(), "secret")
	secret := `{"role":"user","content":[{"type":"text","text":"a secret"}]}` + "\n"
	must(t, os.WriteFile(outside, []byte(secret), 0o600))
	in := func(name string) string { return filepath.Join(dir, "sessions", name+".jsonl") }
	must(t, os.Mkdir(filepath.Join(dir, "sessions"), 0o700))
	must(t, os.Symlink(outside, in("link")))
	must(t, syscall.Mkfifo(in("pipe"), 0o600))
	must(t, os.Mkdir(in("directory"), 0o700))
	must(t, os.WriteFile(in("sparse"), nil, 0o600))
	must(t, os.Truncate(in("sparse"), 1<<40))

	for _, id := range []string{"link", "pipe", "directory", "sparse"} {
		if lines, err := Read(home, id); err == nil {
			t.Errorf("%s: read %v", id, lines)
		}
		if err := forked(home, id, "copy"); err == nil {
			t.Errorf("%s: forked", id)
		}
	}
	for _, id := range []string{"", "..", "../secret", "a/b", strings.Repeat("x", 129)} {
		for _, err := range []error{Delete(home, id), forked(home, id, "copy"), forked(home, "sparse", id)} {
			if protocol.CodeOf(err) != protocol.CodeInvalidRequest {
				t.Errorf("%q: %v", id, err)
			}
		}
	}
	infos, err := List(home)
	if err != nil || len(infos) != 1 || infos[0].ID != "sparse" {
		t.Errorf("%v, %v: only regular files are sessions", infos, err)
	}
	must(t, Delete(home, "link"))
	if got := read(t, outside); got != secret {
		t.Errorf("the file outside is now %q", got)
	}
}

func TestFolderThatLeadsOutside(t *testing.T) {
	home, dir := newHome(t)
	must(t, os.Symlink(t.TempDir(), filepath.Join(dir, "sessions")))
	if _, err := List(home); err == nil {
		t.Error("listed")
	}
	if _, err := NewStore(home).Open(t.Context(), "s"); err == nil {
		t.Error("opened")
	}
}

func FuzzTranscript(f *testing.F) {
	f.Add([]byte(`{"role":"user","content":[{"type":"text","text":"a"}]}` + "\n" + `{"summary":"s","replaces":1}` + "\ntorn"))
	f.Add([]byte(`{"role":"assistant","content":[{"type":"tool_use","id":"x"}]}` + "\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		// A request shows what split takes, without parse: lines that are JSON and no more
		// than what was read, the same that parse takes.
		texts, _, err := split(data)
		kept := 0
		for _, text := range texts {
			kept += len(text) + 1
			if !json.Valid(text) {
				t.Fatalf("line %q is no JSON", text)
			}
		}
		if kept > len(data) {
			t.Fatalf("%d bytes of lines from %d", kept, len(data))
		}
		lines, whole, parseErr := parse(data)
		if parseErr != nil {
			return
		}
		if err != nil || len(lines) != len(texts) || whole != kept {
			t.Fatalf("split has %d lines of %d bytes, %v; parse %d of %d", len(texts), kept, err, len(lines), whole)
		}
		if whole > 0 && data[whole-1] != '\n' || strings.ContainsRune(string(data[whole:]), '\n') {
			t.Fatalf("cut at %d of %q", whole, data)
		}
		messages, err := replay(lines)
		if err != nil {
			return
		}
		if m, ok := missingResults(messages); ok && len(m.Content) == 0 {
			t.Fatal("a message without content")
		}
		var again []byte
		for _, l := range lines {
			again = append(append(again, Encode(l)...), '\n')
		}
		reread, _, err := parse(again)
		if err != nil {
			t.Fatalf("what was written cannot be read: %v", err)
		}
		for i := range reread {
			if first, second := string(Encode(lines[i])), string(Encode(reread[i])); len(reread) != len(lines) || first != second {
				t.Fatalf("line %d is %s, written and read again %s", i+1, first, second)
			}
		}
	})
}

func forked(home *os.Root, from, to string) error {
	_, err := Fork(home, from, to, nil)
	return err
}
