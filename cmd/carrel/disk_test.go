package main

import (
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"carrel/internal/jail"
	"carrel/internal/ordeal"
	"carrel/internal/workspace"
	"carrel/protocol"
)

// write700 makes a file of 700 KiB: two are more than the quota of these tests.
func write700(name string) string { return "head -c 716800 /dev/zero > " + name }

func diskOf(d *daemon, user string) (bytes int64, isHard bool) {
	d.t.Helper()
	status, body := d.get("/v1/users/"+user+"/sandbox", nil)
	var info protocol.SandboxInfo
	if err := json.Unmarshal(body, &info); err != nil || status != http.StatusOK {
		d.t.Fatalf("sandbox of %s: %d %s", user, status, body)
	}
	if info.Limits.DiskBytes != 1<<20 {
		d.t.Errorf("the limit is shown as %d", info.Limits.DiskBytes)
	}
	for _, l := range info.Isolation.Layers {
		if l.Name == jail.LayerQuota {
			return info.DiskBytes, l.State == protocol.LayerOK
		}
	}
	d.t.Fatal("the report has no line for the quota")
	return 0, false
}

func wantPastQuota(t *testing.T, status int, body []byte) {
	t.Helper()
	if status != http.StatusInsufficientStorage || !strings.Contains(string(body), string(protocol.CodeDiskQuotaExceeded)) {
		t.Errorf("status %d, %s", status, body)
	}
}

func TestUserPastTheDiskQuotaMayCleanUpButNotWriteOn(t *testing.T) {
	d := serve(t, t.TempDir(), "SANDBOX_DISK_QUOTA=1MiB")
	status, body := d.execute("ana", write700("a")+"; "+write700("b")+"; "+write700("c"), 0)
	used, isHard := diskOf(d, "ana")
	if isHard {
		if used > 1<<20 || !strings.Contains(string(body), "quota") && !strings.Contains(string(body), "No space") {
			t.Errorf("with a hard quota %d bytes are there; %s", used, body)
		}
		d.stop()
		return
	}
	if used < 2<<20 || (status != http.StatusOK && status != http.StatusInsufficientStorage) {
		t.Fatalf("%d bytes are there; %d %s", used, status, body)
	}
	if r := d.exec("ana", "ls"); r.Stdout != "a\nb\nc\n" {
		t.Errorf("a run that only reads: %+v", r)
	}
	status, body = d.execute("ana", write700("d"), 0)
	wantPastQuota(t, status, body)
	run := d.outcome("ana", write700("e"))
	if run.Error == nil || run.Error.Code != protocol.CodeDiskQuotaExceeded || !strings.Contains(run.Error.Message, "soft") {
		t.Errorf("the run ended with %+v", run.Error)
	}
	if result := d.script("ana", "rm *; ls"); *result.ExitCode != 0 || result.Content != "" {
		t.Errorf("the run that deletes: %+v", result)
	}
	if r := d.exec("ana", write700("f")); r.ExitCode != 0 {
		t.Errorf("after that: %+v", r)
	}
	if r := d.exec("bob", write700("a")); r.ExitCode != 0 {
		t.Errorf("another user: %+v", r)
	}
	if runs := workerOf(d, "ana").Runs; runs != 6 {
		t.Errorf("the worker has served %d runs, want 6: it was replaced", runs)
	}
	d.stop()
}

func TestRunThatGoesOnWritingPastTheDiskQuotaIsStopped(t *testing.T) {
	d := serve(t, t.TempDir(), "SANDBOX_DISK_QUOTA=1MiB")
	if _, isHard := diskOfNew(d); isHard {
		d.stop()
		return // the kernel refuses it: the test above
	}
	const endless = "i=0; while :; do head -c 65536 /dev/zero > f$i; i=$((i+1)); sleep 0.02; done"
	status, body := d.execute("ana", endless, 0)
	wantPastQuota(t, status, body)
	d.exec("ana", "rm f*")
	run := d.outcome("ana", endless)
	if run.Error == nil || run.Error.Code != protocol.CodeDiskQuotaExceeded {
		t.Errorf("the run ended with %+v", run.Error)
	}
	d.stop()
}

// diskOfNew is diskOf for a user who has written nothing yet.
func diskOfNew(d *daemon) (int64, bool) {
	d.t.Helper()
	d.exec("ana", "true")
	return diskOf(d, "ana")
}

func TestRequiredHardQuotaIsRefusedWhereThereIsNone(t *testing.T) {
	base := t.TempDir()
	if workspace.DetectQuota(base).IsHard {
		d := serve(t, base, "SANDBOX_REQUIRE=quota")
		d.stop()
		return
	}
	_, stderr, status := command(t, environment(base, "SANDBOX_REQUIRE=quota"), "serve")
	if status == 0 || !strings.Contains(stderr, "quota: soft: ") || !strings.Contains(stderr, "prjquota") {
		t.Errorf("status %d, %s", status, stderr)
	}
}

func TestDirectoryUnusedForLongerThanItsTimeIsRemoved(t *testing.T) {
	base := filepath.Join(t.TempDir(), "base")
	d := serve(t, base)
	d.exec("ana", "echo hers > file")
	d.exec("bob", "echo his > file")
	d.stop()
	users := filepath.Join(base, "users")
	old := time.Now().Add(-2 * time.Hour)
	if err := os.Chtimes(filepath.Join(users, workspace.DirName("ana"), "meta.json"), old, old); err != nil {
		t.Fatal(err)
	}
	d = serve(t, base, "SANDBOX_FILE_TTL=1h")
	ordeal.Eventually(t, "ana's directory is gone", func() bool {
		_, err := os.Stat(filepath.Join(users, workspace.DirName("ana")))
		return os.IsNotExist(err)
	})
	if r := d.exec("ana", "ls"); r.Stdout != "" {
		t.Errorf("when she comes back there is %q", r.Stdout)
	}
	if r := d.exec("bob", "cat file"); r.Stdout != "his\n" {
		t.Errorf("bob finds %q", r.Stdout)
	}
	d.stop()
}
