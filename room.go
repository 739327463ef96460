package carrel

import (
	"context"
	"sync"

	"carrel/protocol"
)

// room is what the daemon itself may write into users' directories: what is left of
// the disk quota. The kernel's hard quota does not hold for it (ext4 asks for
// CAP_SYS_RESOURCE before it refuses), so it has to look itself.
type room struct {
	quota   int64
	measure func(ctx context.Context, userID string) (int64, error)

	mu    sync.Mutex
	taken map[string]int64 // by user: what is being written, at most
}

func newRoom(quota int64, measure func(context.Context, string) (int64, error)) *room {
	return &room{quota: quota, measure: measure, taken: make(map[string]int64)}
}

// take tells how many bytes, of at most most, may be written now. What others write
// for the user meanwhile is taken for written; call free when it is done. Nothing
// left is CodeDiskQuotaExceeded.
func (r *room) take(ctx context.Context, userID string, most int64) (bytes int64, free func(), err error) {
	// First taken, then measured: two that come at once must not both see the
	// same bytes free.
	r.mu.Lock()
	others := r.taken[userID]
	r.taken[userID] += most
	r.mu.Unlock()
	free = func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.taken[userID] -= most; r.taken[userID] == 0 {
			delete(r.taken, userID)
		}
	}
	used, err := r.measure(ctx, userID)
	if err != nil && protocol.CodeOf(err) != protocol.CodeNotFound {
		free()
		return 0, nil, err
	}
	if bytes = min(most, r.quota-used-others); bytes <= 0 {
		free()
		return 0, nil, protocol.Errorf(protocol.CodeDiskQuotaExceeded,
			"the user has %d bytes, up to %d more are being written, and may have %d (SANDBOX_DISK_QUOTA)", used, others, r.quota)
	}
	return bytes, free, nil
}
