package workspace

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestAttachmentsThatNobodyNeedsAreRemovedWhenTheirTimeIsUp(t *testing.T) {
	now := time.Now()
	options := rootOptions(filepath.Join(t.TempDir(), "base"))
	options.Now = func() time.Time { return now }
	d := openDirs(t, options)
	add := func(user string) string {
		info, err := d.AddAttachment(t.Context(), user, Upload{Body: strings.NewReader("x"), MaxBytes: 9})
		if err != nil {
			t.Fatal(err)
		}
		return info.ID
	}
	needed, unneeded, used := add("ana"), add("ana"), add("bob")
	part := filepath.Join(attachmentsOf(d, "ana"), ".X"+partSuffix)
	if err := errors.Join(os.WriteFile(part, nil, 0o600), os.Mkdir(filepath.Join(attachmentsOf(d, "ana"), "theirs"), 0o700)); err != nil {
		t.Fatal(err)
	}
	dir, err := d.Open(t.Context(), "bob")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = dir.Close() }()
	asked := 0
	expire := func(ttl, after time.Duration, answer error) (int, error) {
		t.Helper()
		saved := now
		defer func() { now = saved }()
		now = now.Add(after)
		return d.ExpireAttachments(t.Context(), ttl, func(home *os.Root) (map[string]bool, error) {
			asked++
			if _, err := home.Stat(subdirAttachments); err != nil {
				t.Error(err)
			}
			return map[string]bool{needed: true}, answer
		})
	}
	left := func(user string) int {
		entries, err := os.ReadDir(attachmentsOf(d, user))
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}

	if n, err := expire(24*time.Hour, 30*time.Minute, nil); n != 0 || err != nil || asked != 0 {
		t.Errorf("before its time: %d, %v, asked %d times", n, err, asked)
	}
	if n, err := expire(0, 2*time.Hour, nil); n != 1 || err != nil || left("ana") != 5 {
		t.Errorf("an upload that broke off: %d, %v, %d left", n, err, left("ana"))
	}
	if n, err := expire(24*time.Hour, 25*time.Hour, errors.New("a broken transcript")); n != 0 || err == nil || left("ana") != 5 {
		t.Errorf("where it is not known what is needed: %d, %v, %d left", n, err, left("ana"))
	}
	if n, err := expire(24*time.Hour, 25*time.Hour, nil); n != 1 || err != nil || left("ana") != 3 || left("bob") != 2 {
		t.Errorf("%d, %v, %d and %d left", n, err, left("ana"), left("bob"))
	}
	if _, err := d.Attachment(t.Context(), "ana", unneeded); err == nil {
		t.Error("it is still there")
	}
	for user, id := range map[string]string{"ana": needed, "bob": used} {
		if _, err := os.Stat(filepath.Join(attachmentsOf(d, user), id)); err != nil {
			t.Error(err)
		}
	}
}

func TestExpiringAttachmentsIsNoUse(t *testing.T) {
	now := time.Now()
	options := rootOptions(filepath.Join(t.TempDir(), "base"))
	options.Now = func() time.Time { return now }
	d := openDirs(t, options)
	if _, err := d.AddAttachment(t.Context(), "ana", Upload{Body: strings.NewReader("x"), MaxBytes: 9}); err != nil {
		t.Fatal(err)
	}
	now = now.Add(48 * time.Hour)
	if _, err := d.ExpireAttachments(t.Context(), 24*time.Hour, func(*os.Root) (map[string]bool, error) { return nil, nil }); err != nil {
		t.Fatal(err)
	}
	gone, err := d.Expire(t.Context(), 24*time.Hour, nil)
	if err != nil || len(gone) != 1 {
		t.Errorf("the directory stays: %q, %v", gone, err)
	}
}
