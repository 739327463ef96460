package carrel

import (
	"context"
	"log/slog"
	"time"

	"carrel/internal/audit"
	"carrel/internal/logline"
	"carrel/internal/workspace"
)

// expiry removes the directories of users who have been away for too long, and
// attachments of that age that no session needs any more.
type expiry struct {
	dirs *workspace.Dirs
	ttl  time.Duration // 0 = never; then only what earlier removals left is removed
	// isAwaited tells of users whose run waits and has not opened the directory
	// yet. An open one stays in any case.
	isAwaited func(userID string) bool
	audit     *audit.Log
	log       *slog.Logger
}

// every is how often it is looked for: often enough that nothing stays much longer
// than it may, seldom enough to cost nothing.
func (e expiry) every() time.Duration {
	if e.ttl == 0 {
		return time.Hour
	}
	return min(max(e.ttl/10, time.Minute), time.Hour)
}

// run looks at once and then time and again, until ctx ends.
func (e expiry) run(ctx context.Context) {
	ticker := time.NewTicker(e.every())
	defer ticker.Stop()
	for {
		gone, err := e.dirs.Expire(ctx, e.ttl, e.isAwaited)
		for _, userID := range gone {
			_ = e.audit.Write(ctx, audit.Event{Action: audit.UserExpired, UserID: userID, Decision: audit.Allow})
			e.log.InfoContext(ctx, "directory of user is removed", logline.KeyUser, logline.User(userID), "unused_for_longer_than", e.ttl)
		}
		if err != nil && ctx.Err() == nil {
			e.log.WarnContext(ctx, "some directories could not be removed", "error", err)
		}
		files, err := e.dirs.ExpireAttachments(ctx, e.ttl, neededAttachments)
		if files > 0 {
			e.log.InfoContext(ctx, "attachments that no session needs are removed", "files", files)
		}
		if err != nil && ctx.Err() == nil {
			e.log.WarnContext(ctx, "some attachments could not be removed", "error", err)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}
