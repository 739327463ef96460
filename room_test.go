package carrel

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"carrel/internal/workspace"
	"carrel/protocol"
)

const roomQuota = 1 << 20

// newFiler is an Orchestrator that keeps files and runs nothing.
func newFiler(t *testing.T) *Orchestrator {
	t.Helper()
	dirs, err := workspace.Open(t.Context(), workspace.Options{BaseDir: filepath.Join(t.TempDir(), "base")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = dirs.Close() })
	return &Orchestrator{
		cfg: Config{DiskQuota: roomQuota}, dirs: dirs, room: newRoom(roomQuota, dirs.DiskUsage), going: make(map[string]*goingRun),
		transcripts: make(chan struct{}, 1),
	}
}

// Each upload alone would fit; that there is room is not known to ten at once.
func TestUploadsAtOnceStayWithinTheQuota(t *testing.T) {
	o := newFiler(t)
	const each = roomQuota / 2
	var all sync.WaitGroup
	start := make(chan struct{})
	for range 10 {
		all.Go(func() {
			body := &waiting{Reader: strings.NewReader(strings.Repeat("x", each)), until: start}
			_, err := o.AddAttachment(t.Context(), "ann", "a.txt", "", body)
			if err != nil && protocol.CodeOf(err) != protocol.CodeDiskQuotaExceeded {
				t.Error(err)
			}
		})
	}
	close(start)
	all.Wait()
	used, err := o.dirs.DiskUsage(t.Context(), "ann")
	if err != nil || used > roomQuota {
		t.Errorf("%d bytes are used of %d, %v", used, roomQuota, err)
	}
	if len(o.room.taken) > 0 {
		t.Errorf("still taken: %v", o.room.taken)
	}
}

type waiting struct {
	io.Reader

	until <-chan struct{}
}

func (w *waiting) Read(p []byte) (int, error) {
	<-w.until
	return w.Reader.Read(p)
}

// The kernel's quota does not hold for a daemon that is root.
func TestForksStayWithinTheQuota(t *testing.T) {
	o := newFiler(t)
	dir, err := o.dirs.Open(t.Context(), "ann")
	if err != nil {
		t.Fatal(err)
	}
	sessions := filepath.Join(dir.Path, "home", "sessions")
	line := `{"role":"user","content":["` + strings.Repeat("x", roomQuota/4) + `"]}` + "\n"
	err = errors.Join(os.Mkdir(sessions, 0o700), os.WriteFile(filepath.Join(sessions, "s.jsonl"), []byte(line), 0o600), dir.Close())
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		if _, err = o.ForkSession(t.Context(), "ann", "s", ""); err != nil {
			break
		}
	}
	if protocol.CodeOf(err) != protocol.CodeDiskQuotaExceeded {
		t.Errorf("ten forks: %v", err)
	}
	if used, err := o.dirs.DiskUsage(t.Context(), "ann"); err != nil || used > roomQuota {
		t.Errorf("%d bytes are used of %d, %v", used, roomQuota, err)
	}
}

func TestNoRoomIsTakenByWhatFails(t *testing.T) {
	r := newRoom(roomQuota, func(context.Context, string) (int64, error) { return 0, errors.New("no disk") })
	if _, _, err := r.take(t.Context(), "ann", 1); err == nil || len(r.taken) > 0 {
		t.Errorf("%v, taken %v", err, r.taken)
	}
}

// A fork reads a transcript of up to 64 MiB, as a request for it does: both together
// are few at a time.
func TestForkWaitsWhileOthersReadTranscripts(t *testing.T) {
	o := newFiler(t)
	o.transcripts <- struct{}{}
	gone := errors.New("the client has gone")
	ctx, leave := context.WithCancelCause(t.Context())
	leave(gone)
	if _, err := o.ForkSession(ctx, "ann", "s", ""); !errors.Is(err, gone) {
		t.Errorf("a fork beside a reader gives %v", err)
	}
	<-o.transcripts
	if _, err := o.ForkSession(t.Context(), "ann", "s", ""); protocol.CodeOf(err) != protocol.CodeNotFound || len(o.transcripts) > 0 {
		t.Errorf("alone it gives %v", err)
	}
}
