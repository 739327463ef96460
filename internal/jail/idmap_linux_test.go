package jail_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"carrel/internal/jail"
	"carrel/protocol"
)

// The uids of these tests: of a user, as its files have it, and of a slot.
const (
	userUID = 300001
	slotUID = 300002
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root") // the gate's root half runs it, and fails if it does not
	}
}

// worker is the program of the jailed half: the gate's, or one built now.
func worker(t *testing.T) string {
	t.Helper()
	if path := os.Getenv("SANDBOX_WORKER_PATH"); path != "" {
		return path
	}
	path := filepath.Join(t.TempDir(), "carrel-worker")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-buildvcs=false", "-o", path, "carrel/cmd/carrel-worker")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build carrel-worker: %v\n%s", err, out)
	}
	return path
}

func spawner(t *testing.T) *jail.Spawner {
	t.Helper()
	s, err := jail.StartSpawner(worker(t), os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func newIDMap(t *testing.T, s *jail.Spawner) *jail.IDMap {
	t.Helper()
	m, err := s.NewIDMap(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return m
}

// mapped makes a workspace and a home of userUID, and their mounts for slotUID.
func mapped(t *testing.T) (workspace, home string, mounts []*os.File) {
	t.Helper()
	base := t.TempDir()
	workspace, home = filepath.Join(base, "workspace"), filepath.Join(base, "home")
	for _, dir := range []string{workspace, home} {
		if err := errors.Join(os.Mkdir(dir, 0o700), os.Chown(dir, userUID, userUID)); err != nil {
			t.Fatal(err)
		}
	}
	owners := newIDMap(t, spawner(t))
	if err := owners.Set(userUID, slotUID); err != nil {
		t.Fatal(err)
	}
	m, err := jail.TakeMounts("", owners, workspace, home)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	return workspace, home, m.User
}

// as runs a script as a uid of the host, with the two mounts as descriptors 3 and 4.
func as(t *testing.T, uid uint32, mounts []*os.File, script string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/bin/sh", "-ec", "umask 022; W=/proc/self/fd/3; H=/proc/self/fd/4; "+script)
	cmd.Env, cmd.ExtraFiles = []string{"PATH=/usr/bin:/bin"}, mounts
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func TestMappedMountsShowTheUsersFilesAsTheSlots(t *testing.T) {
	needRoot(t)
	workspace, home, mounts := mapped(t)
	out, err := as(t, slotUID, mounts, `echo w >$W/file; echo h >$H/state; mkdir $H/sessions; stat -c %u:%g $W/file $H/state $H/sessions | sort -u`)
	if err != nil || out != "300002:300002" {
		t.Errorf("as the slot: %s (%v)", out, err)
	}
	for _, path := range []string{filepath.Join(workspace, "file"), filepath.Join(home, "state"), filepath.Join(home, "sessions")} {
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil || st.Uid != userUID || st.Gid != userUID {
			t.Errorf("%s is %d:%d on disk (%v)", path, st.Uid, st.Gid, err)
		}
	}
	// Nobody else gets in there, not even whose files they are on disk.
	if out, err := as(t, userUID, mounts, "cat $W/file"); err == nil {
		t.Errorf("the user's uid reads through the slot's mount: %s", out)
	}
	if err := unix.Mkdirat(int(mounts[0].Fd()), "roots", 0o700); !errors.Is(err, unix.EOVERFLOW) {
		t.Errorf("root, who has no translation, makes a directory: %v", err)
	}
}

// TestMappedMountsAreTwo holds that nothing is moved from one to the other, as with
// mounts that translate nothing: what the tools may see never becomes what only
// the worker may.
func TestMappedMountsAreTwo(t *testing.T) {
	needRoot(t)
	_, _, mounts := mapped(t)
	if out, err := as(t, slotUID, mounts, "echo w >$W/file; ln $W/file $W/hard; mv $W/hard $W/moved"); err != nil {
		t.Fatalf("within one mount: %s (%v)", out, err)
	}
	from, to := int(mounts[0].Fd()), int(mounts[1].Fd())
	if err := unix.Renameat(from, "file", to, "file"); !errors.Is(err, unix.EXDEV) {
		t.Errorf("rename from one to the other: %v", err)
	}
	if err := unix.Linkat(from, "file", to, "file", 0); !errors.Is(err, unix.EXDEV) {
		t.Errorf("link from one to the other: %v", err)
	}
}

func TestIDMapIsSetOnceAndOutlivesItsProcess(t *testing.T) {
	needRoot(t)
	s := spawner(t)
	owners := newIDMap(t, s)
	if _, err := jail.TakeMounts("", owners, t.TempDir()); err == nil {
		t.Error("a mount was made that translates nothing yet")
	}
	s.Close() // kills what the spawner has started, if it had not
	if err := owners.Set(userUID, slotUID); err != nil {
		t.Errorf("the first setting: %v", err)
	}
	if err := owners.Set(userUID+5, slotUID); err == nil {
		t.Error("it was set again, for another user")
	}
	mounts, err := jail.TakeMounts("", owners, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	mounts.Close()
}

func TestProbeTellsWhereNoWorkerCanBeWarm(t *testing.T) {
	needRoot(t)
	for dir, want := range map[string]protocol.LayerState{
		filepath.Join(t.TempDir(), "not", "there", "yet"): protocol.LayerOK,
		"/proc/not-there": protocol.LayerDegraded, // proc has no mapped mounts
	} {
		r := jail.Probe(t.Context(), jail.ProbeOptions{Worker: worker(t), Mode: "strict", BaseDir: dir})
		if r.State != "strict" {
			t.Errorf("%s: the isolation is %s", dir, r.State)
		}
		i := slices.IndexFunc(r.Layers, func(l protocol.Layer) bool { return l.Name == jail.LayerIDMap })
		if l := r.Layers[i]; l.State != want || (want != protocol.LayerOK && (l.Detail == "" || l.Meaning == "" || l.Fix == "")) {
			t.Errorf("%s: %+v", dir, l)
		}
	}
}
