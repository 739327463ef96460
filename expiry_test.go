package carrel

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"carrel/internal/workspace"
)

func TestDirectoriesAreRemovedWhenTheirTimeIsUpAndNotBefore(t *testing.T) {
	base := filepath.Join(t.TempDir(), "base")
	synctest.Test(t, func(t *testing.T) {
		dirs, err := workspace.Open(t.Context(), workspace.Options{BaseDir: base})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = dirs.Close() }()
		open := func(user string) *workspace.Dir {
			dir, err := dirs.Open(t.Context(), user)
			if err != nil {
				t.Fatal(err)
			}
			return dir
		}
		exists := func(user string) bool {
			_, err := os.Stat(filepath.Join(base, "users", workspace.DirName(user)))
			return err == nil
		}
		for _, user := range []string{"away", "awaited"} {
			if err := open(user).Close(); err != nil {
				t.Fatal(err)
			}
		}
		working := open("working")

		ctx, stop := context.WithCancel(t.Context())
		var group sync.WaitGroup
		e := expiry{
			dirs: dirs, ttl: 5 * time.Hour,
			isAwaited: func(user string) bool { return user == "awaited" },
			log:       slog.New(slog.DiscardHandler),
		}
		group.Go(func() { e.run(ctx) })
		after(5 * time.Hour)
		synctest.Wait()
		if !exists("away") {
			t.Error("it is removed when its time is not over yet")
		}
		after(e.every())
		synctest.Wait()
		if exists("away") || !exists("awaited") || !exists("working") {
			t.Errorf("away is there: %t, awaited: %t, working: %t", exists("away"), exists("awaited"), exists("working"))
		}
		if err := working.Close(); err != nil {
			t.Error(err)
		}
		after(5 * time.Hour)
		synctest.Wait()
		if !exists("working") {
			t.Error("the time does not start at the end of the use")
		}
		after(e.every())
		synctest.Wait()
		if exists("working") {
			t.Error("it stays for ever")
		}
		stop()
		group.Wait()
	})
}

func TestExpiryLooksOftenEnoughAndNotTooOften(t *testing.T) {
	for _, tt := range []struct{ ttl, want time.Duration }{
		{0, time.Hour},
		{time.Second, time.Minute},
		{time.Hour, 6 * time.Minute},
		{720 * time.Hour, time.Hour},
	} {
		t.Run(fmt.Sprint(tt.ttl), func(t *testing.T) {
			if got := (expiry{ttl: tt.ttl}).every(); got != tt.want {
				t.Errorf("every %s, want %s", got, tt.want)
			}
		})
	}
}
