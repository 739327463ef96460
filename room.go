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

const (
	// firstStep and lastStep are how much of the room an upload of unknown length takes
	// at a time: each time the user's directory is measured, so it takes twice as much
	// as the last time.
	firstStep = 1 << 20
	lastStep  = 64 << 20
)

// allowance is what one upload may write: it takes its room as it goes. Used by one
// goroutine.
type allowance struct {
	room   *room
	userID string
	left   int64 // taken, and not written yet
	step   int64
	frees  []func()
}

func (r *room) allowance(userID string) *allowance {
	return &allowance{room: r, userID: userID, step: firstStep}
}

// reserve takes room for all that will be written; CodeDiskQuotaExceeded if there is not
// so much.
func (a *allowance) reserve(ctx context.Context, bytes int64) error {
	if bytes <= 0 {
		return nil
	}
	got, free, err := a.room.take(ctx, a.userID, bytes)
	if err != nil {
		return err
	}
	a.frees = append(a.frees, free)
	if a.left += got; got < bytes {
		return protocol.Errorf(protocol.CodeDiskQuotaExceeded, "the user may have %d bytes more (SANDBOX_DISK_QUOTA)", got)
	}
	return nil
}

// spend is asked before so many bytes are written.
func (a *allowance) spend(ctx context.Context, bytes int64) error {
	for a.left < bytes {
		got, free, err := a.room.take(ctx, a.userID, max(a.step, bytes-a.left))
		if err != nil {
			return err
		}
		a.frees = append(a.frees, free)
		a.left += got
		a.step = min(2*a.step, lastStep)
	}
	a.left -= bytes
	return nil
}

// free gives the room back: what was written is on disk, or gone.
func (a *allowance) free() {
	for _, free := range a.frees {
		free()
	}
}
