//go:build linux && quotakernel

// These tests need a kernel and a file system with project quota, which few
// machines have: scripts/qemu-quota.sh runs them (make test-qemu).

package workspace

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"carrel/internal/beneath"
)

// quotaDir makes a directory below CARREL_TEST_QUOTA_DIR, where project quota is
// in force. Every user may enter it.
func quotaDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp(os.Getenv("CARREL_TEST_QUOTA_DIR"), "base-") //nolint:usetesting // it has to lie on that file system
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

const testQuota = 2 << 20

func quotaOptions(t *testing.T) Options {
	t.Helper()
	opts := rootOptions(filepath.Join(quotaDir(t), "base"))
	opts.DiskQuota = testQuota
	return opts
}

// TestQuotaChild is what a sandbox's process does in the other tests: it works in
// its workspace, which it has as directory, and says how it went.
func TestQuotaChild(t *testing.T) {
	words := strings.Fields(os.Getenv("CARREL_QUOTA_CHILD"))
	if len(words) == 0 {
		return // it is at work only as a child
	}
	must(t, unix.Fchdir(3))
	n := int64(0)
	if len(words) > 2 {
		n, _ = strconv.ParseInt(words[2], 10, 64)
	}
	fmt.Println("CHILD:", childSays(words[0], words[1], n))
}

func childSays(what, name string, n int64) string {
	switch what {
	case "write": // says how many bytes went in
		done, err := fill(name, n)
		// ext4 and xfs have an error each for it.
		if err != nil && !errors.Is(err, unix.EDQUOT) && !errors.Is(err, unix.ENOSPC) {
			return err.Error()
		}
		return strconv.FormatInt(done, 10)
	case "files": // says how many could be made
		for i := range n {
			if err := os.WriteFile(fmt.Sprint(name, i), nil, 0o600); err != nil {
				return strconv.FormatInt(i, 10)
			}
		}
		return strconv.FormatInt(n, 10)
	case "leave":
		return fmt.Sprint(leave(name, 0, false))
	case "disinherit":
		return fmt.Sprint(leave(name, uint32(n), true))
	case "setflags":
		fd, err := unix.Open(name, unix.O_RDONLY, 0)
		if err != nil {
			return err.Error()
		}
		const projInherit = 0x20000000 // FS_PROJINHERIT_FL
		flags, err := unix.IoctlGetUint32(fd, unix.FS_IOC_GETFLAGS)
		if err != nil {
			return err.Error()
		}
		return fmt.Sprint(unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, int(flags&^projInherit)))
	}
	return "what?"
}

// fill writes n bytes into a new file, or as many as there is room for.
func fill(name string, n int64) (done int64, err error) {
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	buf := make([]byte, 64<<10)
	for done < n {
		k, err := file.Write(buf)
		done += int64(k)
		if err != nil {
			return done, err
		}
	}
	return done, file.Sync()
}

// leave tries to give a file or directory another project.
func leave(name string, project uint32, disinherit bool) error {
	fd, err := unix.Open(name, unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer beneath.Close(fd)
	attr, err := getAttr(fd)
	if err != nil {
		return err
	}
	attr.project = project
	if disinherit {
		attr.flags &^= flagProjInherit
	}
	return ioctl(fd, ioctlSetAttr, &attr)
}

// child runs a child as the sandbox does: in a user namespace of its own, as uid
// 1000, which is the user's on the host.
func child(t *testing.T, dir *Dir, place func() (*os.File, error), command string) string {
	t.Helper()
	file, err := place()
	must(t, err)
	defer file.Close()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestQuotaChild$")
	cmd.Env = []string{"CARREL_QUOTA_CHILD=" + command}
	cmd.ExtraFiles = []*os.File{file}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 1000, HostID: dir.UID, Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 1000, HostID: dir.GID, Size: 1}},
		Credential:  &syscall.Credential{Uid: 1000, Gid: 1000},
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
	_, said, _ := strings.Cut(string(out), "CHILD: ")
	said, _, _ = strings.Cut(said, "\n")
	return said
}

func written(t *testing.T, dir *Dir, place func() (*os.File, error), name string, n int64) int64 {
	t.Helper()
	said := child(t, dir, place, fmt.Sprintf("write %s %d", name, n))
	got, err := strconv.ParseInt(said, 10, 64)
	if err != nil {
		t.Fatalf("write %s: %s", name, said)
	}
	return got
}

func TestProjectQuotaIsFound(t *testing.T) {
	dir := quotaDir(t)
	if q := DetectQuota(dir); !q.IsHard || q.Fix != "" {
		t.Fatalf("%+v", q)
	}
	must(t, leave(dir, 4711, false))
	if q := DetectQuota(dir); q.IsHard || !strings.Contains(q.Detail, "4711") {
		t.Errorf("in a project of somebody else's: %+v", q)
	}
}

func TestKernelRefusesWhatGoesPastAUsersQuota(t *testing.T) {
	opts := quotaOptions(t)
	d := openDirs(t, opts)
	alice, bob := openUser(t, d, "alice"), openUser(t, d, "bob")
	first := written(t, alice, alice.OpenWorkspace, "a", testQuota/2)
	if first != testQuota/2 {
		t.Fatalf("within the quota only %d bytes can be written", first)
	}
	second := written(t, alice, alice.OpenHome, "b", 2*testQuota)
	if sum := first + second; sum > testQuota || sum < testQuota*3/4 {
		t.Errorf("workspace and home together take %d bytes of %d", sum, testQuota)
	}
	if more := written(t, alice, alice.OpenWorkspace, "c", testQuota); more > 0 {
		t.Errorf("%d bytes more can be written into a full directory", more)
	}
	usage := diskUsage(t, d, "alice")
	if usage < testQuota*3/4 || usage > testQuota {
		t.Errorf("DiskUsage is %d, the quota %d", usage, testQuota)
	}
	if got := written(t, bob, bob.OpenWorkspace, "a", testQuota/2); got != testQuota/2 {
		t.Errorf("another user can write only %d bytes", got)
	}
	must(t, os.Remove(filepath.Join(alice.Path, "home", "b")))
	if got := written(t, alice, alice.OpenWorkspace, "d", testQuota/4); got != testQuota/4 {
		t.Errorf("after a removal only %d bytes can be written", got)
	}

	// The control: without a quota all of it can be written.
	opts.BaseDir, opts.DiskQuota = filepath.Join(quotaDir(t), "free"), 0
	free := openUser(t, openDirs(t, opts), "carol-without")
	if got := written(t, free, free.OpenWorkspace, "a", 4*testQuota); got != 4*testQuota {
		t.Errorf("without a quota only %d bytes can be written", got)
	}
}

func TestEmptyFilesAreBoundedToo(t *testing.T) {
	dir := openUser(t, openDirs(t, quotaOptions(t)), "alice")
	const most = testQuota / inodeBytes
	said := child(t, dir, dir.OpenWorkspace, fmt.Sprintf("files f %d", 2*most))
	if n, err := strconv.Atoi(said); err != nil || n > most || n < most/2 {
		t.Errorf("%s files can be made, the limit is %d", said, most)
	}
}

// TestSandboxCannotLeaveItsProject: each way out fails, and the control shows
// that the same call works for root on the host.
func TestSandboxCannotLeaveItsProject(t *testing.T) {
	d := openDirs(t, quotaOptions(t))
	dir := openUser(t, d, "alice")
	written(t, dir, dir.OpenWorkspace, "file", 4096)
	must(t, os.Mkdir(filepath.Join(dir.Path, "workspace", "sub"), 0o700))
	must(t, os.Chown(filepath.Join(dir.Path, "workspace", "sub"), dir.UID, dir.GID))
	for _, command := range []string{
		"leave file", "leave sub", "leave .", "setflags sub", "setflags .",
		fmt.Sprint("disinherit sub ", dir.UID), fmt.Sprint("disinherit . ", dir.UID),
	} {
		said := child(t, dir, dir.OpenWorkspace, command)
		for _, name := range []string{".", "sub", "file"} {
			fd, err := unix.Open(filepath.Join(dir.Path, "workspace", name), unix.O_RDONLY|unix.O_CLOEXEC, 0)
			must(t, err)
			attr, err := getAttr(fd)
			must(t, err)
			beneath.Close(fd)
			if attr.project != uint32(dir.UID) || (name != "file" && attr.flags&flagProjInherit == 0) {
				t.Errorf("%s (%s): now %s is in project %d, flags %#x", command, said, name, attr.project, attr.flags)
			}
		}
	}
	must(t, leave(filepath.Join(dir.Path, "workspace", "file"), 0, false))
	must(t, leave(filepath.Join(dir.Path, "workspace", "sub"), uint32(dir.UID), true))
}

func TestDirectoryFromBeforeTheQuotaIsTakenIn(t *testing.T) {
	opts := quotaOptions(t)
	victim := filepath.Join(filepath.Dir(opts.BaseDir), "victim")
	must(t, os.WriteFile(victim, []byte("x"), 0o600))
	opts.DiskQuota = 0
	d := openDirs(t, opts)
	dir := makeUser(t, d, "alice")
	deep := filepath.Join(dir.Path, "workspace", "deep")
	must(t, os.MkdirAll(deep, 0o700))
	makeDeep(t, deep, 3*openLevels, "d")
	must(t, os.WriteFile(filepath.Join(deep, "big"), make([]byte, testQuota/2), 0))
	must(t, unix.Mkfifo(filepath.Join(deep, "pipe"), 0o600))
	must(t, os.Symlink(victim, filepath.Join(deep, "link")))
	unix.Sync()
	want := diskUsage(t, d, "alice")
	must(t, d.Close())

	opts.DiskQuota = testQuota
	d = openDirs(t, opts)
	if got := diskUsage(t, d, "alice"); got != want {
		t.Errorf("before it is taken in it holds %d bytes, the walk gave %d", got, want)
	}
	dir = openUser(t, d, "alice")
	got := diskUsage(t, d, "alice")
	if got < want*9/10 || got > want*11/10 {
		t.Errorf("the kernel counts %d bytes, the walk %d", got, want)
	}
	if more := written(t, dir, dir.OpenWorkspace, "more", testQuota); more > testQuota-testQuota/2 {
		t.Errorf("%d bytes more can be written, %d are there", more, got)
	}
	fd, err := unix.Open(victim, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	must(t, err)
	defer beneath.Close(fd)
	if attr, err := getAttr(fd); err != nil || attr.project != 0 {
		t.Errorf("where a link leads, the project is %d, %v", attr.project, err)
	}
}

func TestFullDirectoryIsRemovedAndItsProjectIsEmpty(t *testing.T) {
	d := openDirs(t, quotaOptions(t))
	dir := openUser(t, d, "alice")
	makeDeep(t, filepath.Join(dir.Path, "workspace"), 3*openLevels, "d")
	written(t, dir, dir.OpenWorkspace, "full", 2*testQuota)
	must(t, dir.Close())
	must(t, d.Remove(t.Context(), "alice"))
	isUnused(t, d)
	var have dqblk
	for range 1000 { // xfs takes removed files off the account a little later
		var err error
		have, err = getLimit(d.base, uint32(dir.UID))
		must(t, err)
		if have.files == 0 {
			break
		}
		must(t, unix.Syncfs(d.base))
	}
	if have.files != 0 {
		t.Errorf("%d files are left in the project", have.files)
	}
	again := openUser(t, d, "alice")
	if got := written(t, again, again.OpenWorkspace, "a", testQuota/2); got != testQuota/2 {
		t.Errorf("the new directory takes only %d bytes", got)
	}
}

func TestStageIsInTheUsersProjectOnceItJoins(t *testing.T) {
	d := openDirs(t, quotaOptions(t))
	dir := openUser(t, d, "ana")
	stage, err := dir.Stage()
	must(t, err)
	at := int(stage.File.Fd())
	file := filepath.Join(d.Path(), "tmp", stage.name, "file")
	must(t, os.WriteFile(file, make([]byte, 1<<20), 0o600))
	before, err := d.DiskUsage(t.Context(), "ana")
	must(t, err)
	must(t, stage.Join(t.Context()))
	// Made afterwards: a link cannot be put into a project.
	must(t, unix.Symlinkat("file", at, "link"))
	must(t, unix.Mkdirat(at, "dir", 0o700))
	place, err := dir.OpenWorkspace()
	must(t, err)
	defer func() { _ = place.Close() }()
	for _, name := range []string{"file", "link", "dir"} {
		must(t, unix.Renameat(at, name, int(place.Fd()), name))
	}
	after, err := d.DiskUsage(t.Context(), "ana")
	must(t, err)
	if after < before+1<<20 {
		t.Errorf("the user has %d bytes, and had %d before", after, before)
	}
	must(t, unix.Renameat(int(place.Fd()), "file", at, "gone"))
	must(t, stage.Close(t.Context()))
	var left int64
	for range 1000 { // xfs takes removed files off the account a little later
		left, err = d.DiskUsage(t.Context(), "ana")
		must(t, err)
		if left <= after-1<<20 {
			return
		}
		must(t, unix.Syncfs(d.base))
	}
	t.Errorf("after its removal the user has %d bytes", left)
}
