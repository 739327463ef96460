package session

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"testing"
)

// A sandbox can write a transcript of its own, and the host reads it. Parsed into
// one value for each element, 64 MiB of two bytes each would take gigabytes of the
// daemon's memory, at one request.
func TestHostReadsAHostileTranscriptInLittleMemory(t *testing.T) {
	home, dir := newHome(t)
	must(t, os.Mkdir(filepath.Join(dir, "sessions"), 0o700))
	line := []byte(`{"role":"user","content":[` + string(bytes.Repeat([]byte("0,"), 8<<20)) + "0]}\n")
	must(t, os.WriteFile(filepath.Join(dir, "sessions", "s.jsonl"), line, 0o600))
	for _, c := range []struct {
		name string
		do   func() error
	}{
		{"read", func() error { _, err := Read(home, "s"); return err }},
		{"fork", func() error { return forked(home, "s", "t") }},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		must(t, c.do())
		runtime.ReadMemStats(&after)
		t.Logf("%s: %d MiB for %d", c.name, (after.TotalAlloc-before.TotalAlloc)>>20, len(line)>>20)
		if got := after.TotalAlloc - before.TotalAlloc; got > 4*uint64(len(line)) {
			t.Errorf("%s: allocated %d bytes for a transcript of %d", c.name, got, len(line))
		}
	}
}

// The sandbox may put a pipe in the folder's place between two steps of the host.
func TestFolderThatBecomesAPipeHoldsNobody(t *testing.T) {
	home, dir := newHome(t)
	must(t, syscall.Mkfifo(filepath.Join(dir, "sessions"), 0o600))
	if err := syncFolder(home); err == nil {
		t.Error("a pipe was synced")
	}
}

func TestAttachmentsOfALineAreFoundAmongWhateverElse(t *testing.T) {
	line := json.RawMessage(`{"role":"user","content":[1,"x",{"type":5},[],` +
		`{"type":"carrel_attachment","id":"file_1"},{"type":"text","id":"file_2"},null,{"type":"carrel_attachment","id":"file_3"}]}`)
	if got := slices.Collect(Attachments(line)); !slices.Equal(got, []string{"file_1", "file_3"}) {
		t.Errorf("%q", got)
	}
	for _, none := range []string{`{"summary":"carrel_attachment","replaces":1}`, `{"content":{"type":"carrel_attachment"}}`, `carrel_attachment`, ``} {
		if got := slices.Collect(Attachments(json.RawMessage(none))); len(got) > 0 {
			t.Errorf("%s: %q", none, got)
		}
	}
}
