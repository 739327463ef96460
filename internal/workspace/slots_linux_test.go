package workspace

import (
	"os"
	"path/filepath"
	"testing"
)

func TestSlotUIDsAndUsersUIDsNeverMeet(t *testing.T) {
	needRoot(t)
	d := openDirs(t, Options{BaseDir: filepath.Join(t.TempDir(), "base"), Root: true, UIDFirst: 300000, UIDCount: 5, SlotUIDs: 2})
	takeSlot := func() int {
		t.Helper()
		uid, err := d.TakeSlotUID()
		must(t, err)
		return uid
	}
	first, second := takeSlot(), takeSlot()
	if first == second || first < 300003 || second < 300003 {
		t.Errorf("the slots are %d and %d, not 300003 and 300004", first, second)
	}
	_, err := d.TakeSlotUID()
	wantError(t, err, "no slot uid is free", "all 2")
	for i, user := range []string{"a", "b", "c"} {
		if dir := makeUser(t, d, user); dir.UID != 300000+i {
			t.Errorf("user %s has uid %d", user, dir.UID)
		}
	}
	d.GiveSlotUID(first)
	_, err = d.Open(t.Context(), "d")
	wantError(t, err, "all 3 of the range 300000:5", "SANDBOX_UID_RANGE")
	if got := takeSlot(); got != first {
		t.Errorf("the free slot is %d, not %d", got, first)
	}
	d.GiveSlotUID(300000) // a user's: it is not a slot's to give
	must(t, d.Remove(t.Context(), "b"))
	if dir := makeUser(t, d, "d"); dir.UID != 300001 {
		t.Errorf("the freed uid is not given again, but %d", dir.UID)
	}
}

// TestSlotNeverHasTheUIDOfADirectory moves the bound between users and slots over
// uids that are in use, as a change of SANDBOX_MAX_WORKERS does.
func TestSlotNeverHasTheUIDOfADirectory(t *testing.T) {
	needRoot(t)
	opts := Options{BaseDir: filepath.Join(t.TempDir(), "base"), Root: true, UIDFirst: 300000, UIDCount: 4}
	d := openDirs(t, opts)
	for _, user := range []string{"a", "b", "c"} {
		makeUser(t, d, user)
	}
	must(t, d.Close())
	opts.SlotUIDs = 3
	d = openDirs(t, opts)
	if uid, err := d.TakeSlotUID(); err != nil || uid != 300003 {
		t.Errorf("the slot is %d (%v), not the one uid without a directory", uid, err)
	}
	_, err := d.TakeSlotUID()
	wantError(t, err, "no slot uid is free")
	if dir := makeUser(t, d, "c"); dir.UID != 300002 {
		t.Errorf("the user's uid is %d now", dir.UID)
	}
	must(t, d.Remove(t.Context(), "c"))
	if uid, err := d.TakeSlotUID(); err != nil || uid != 300002 {
		t.Errorf("the slot is %d (%v), not the freed uid", uid, err)
	}
}

// TestDirectoryThatCameWithASlotsUIDStaysShut is for a directory that was put back
// from a copy while the daemon runs.
func TestDirectoryThatCameWithASlotsUIDStaysShut(t *testing.T) {
	needRoot(t)
	base := t.TempDir()
	opts := Options{BaseDir: filepath.Join(base, "a"), Root: true, UIDFirst: 300001, UIDCount: 2}
	from := openDirs(t, opts)
	makeUser(t, from, "x")
	dir := makeUser(t, from, "y")
	opts.BaseDir, opts.SlotUIDs = filepath.Join(base, "b"), 1
	d := openDirs(t, opts)
	uid, err := d.TakeSlotUID()
	if err != nil || uid != dir.UID {
		t.Fatalf("the slot is %d (%v), the directory's uid %d", uid, err, dir.UID)
	}
	must(t, os.Rename(dir.Path, filepath.Join(d.Path(), "users", filepath.Base(dir.Path))))
	_, err = d.Open(t.Context(), "y")
	wantError(t, err, "belongs to a warm worker too")
	d.GiveSlotUID(uid)
	openUser(t, d, "y")
}

func TestRangeWithoutUIDsForUsersIsRefused(t *testing.T) {
	needRoot(t)
	_, err := Open(t.Context(), Options{BaseDir: t.TempDir(), Root: true, UIDFirst: 300000, UIDCount: 2, SlotUIDs: 2})
	wantError(t, err, "leaves some beside the slots")
}
