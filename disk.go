package carrel

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"carrel/internal/jail"
	"carrel/internal/logline"
	"carrel/internal/workspace"
	"carrel/protocol"
)

// quotaLayer puts into the report's words what holds a user to the disk quota.
func (c *Config) quotaLayer(q workspace.Quota) protocol.Layer {
	l := protocol.Layer{
		Name:     jail.LayerQuota,
		State:    protocol.LayerOK,
		Detail:   q.Detail,
		Meaning:  q.Meaning,
		Fix:      q.Fix,
		Required: slices.Contains(c.Require, jail.LayerQuota),
	}
	if !q.IsHard {
		l.State = protocol.LayerDegraded
	}
	return l
}

const (
	// lookEvery is how often a user's directory is measured while runs go.
	lookEvery = 500 * time.Millisecond
	// lookShare bounds what measuring costs: at most one part in so many of a
	// processor, for each user with runs, whatever the size of the tree.
	lookShare = 20
	// lookAtMost is the longest pause between two looks, even if that costs more:
	// a tree that takes long to walk must not be left alone.
	lookAtMost = 30 * time.Second
	// firstLook is the longest look that is taken beside the start of a run, for what
	// was there before. A run of a user who is past the quota waits for it, up to
	// lookAtMost.
	firstLook = 20 * time.Millisecond
	// maxUncounted is how many looks in a row may fail. A tree in constant motion
	// can escape being counted, but not for longer.
	maxUncounted = 3
	// freeStrikes is how often a user may write on past the quota and still have
	// the next run at once: it may be the one that cleans up. After that he waits.
	freeStrikes = 2
	// maxPause is the longest such wait.
	maxPause = 10 * time.Minute
)

// diskWatch holds users to their disk quota where the file system does not: a
// soft quota. It measures the directory of each user with a going run, and stops
// what goes on writing past the quota. What only reads or deletes is let through,
// so that a user can get back below. The next write-heavy run after one that went
// past is failed however short it is; one that goes past is stopped if it is still
// writing at the next look.
//
// Runs of one user are not told apart: all that write meanwhile are stopped, and
// with them those that only run beside. A nil diskWatch watches nothing.
//
// It has one goroutine for each user with runs, which ends a look after the last
// of them, or with root; wait waits for them.
type diskWatch struct {
	root    context.Context
	quota   int64
	measure func(ctx context.Context, userID string) (int64, error)
	log     *slog.Logger
	wg      sync.WaitGroup

	mu    sync.Mutex
	users map[string]*diskUser // with runs, watched, or past the quota
}

// diskUser is what is known of one user's directory; diskWatch.mu guards it.
type diskUser struct {
	id        string
	turn      chan struct{} // holds a token while somebody looks
	runs      map[*diskRun]bool
	watched   bool          // a goroutine is at it
	took      time.Duration // the last look
	uncounted int           // looks that failed in a row

	isOver  bool      // past the quota, as last seen
	low     int64     // the least it held since it went over
	strikes int       // how often it grew since then
	until   time.Time // no new run before that
}

// diskRun is one going run; diskWatch.mu guards it.
type diskRun struct {
	watch  *diskWatch
	user   *diskUser
	cancel context.CancelCauseFunc
	low    int64 // the least that was there while it went; -1 = not looked yet
	err    error // why it was stopped
}

func newDiskWatch(root context.Context, quota int64, measure func(context.Context, string) (int64, error), log *slog.Logger) *diskWatch {
	return &diskWatch{root: root, quota: quota, measure: measure, log: log, users: make(map[string]*diskUser)}
}

// wait waits for the goroutines; root has ended.
func (w *diskWatch) wait() {
	if w != nil {
		w.wg.Wait()
	}
}

// slack is how much a run past the quota may add without being called
// write-heavy: an agent that is to clean up keeps a record of that.
func (w *diskWatch) slack() int64 { return min(max(w.quota/64, 64<<10), 16<<20) }

// begin has a run of the user watched until its end is called. The context it
// returns ends with the cause CodeDiskQuotaExceeded if the run is stopped. It
// refuses, with that code, a user who wrote on past the quota time and again.
func (w *diskWatch) begin(ctx context.Context, userID string) (context.Context, *diskRun, error) {
	if w == nil {
		return ctx, nil, nil
	}
	watched, cancel := context.WithCancelCause(ctx)
	r := &diskRun{watch: w, cancel: cancel, low: -1}
	isOver, took, err := w.enter(r, userID)
	switch {
	case err != nil:
		cancel(nil)
		return ctx, nil, err
	case isOver:
		look, stop := context.WithTimeout(watched, lookAtMost)
		defer stop()
		w.look(look, r.user)
	case took < firstLook:
		// What the run has written by then counts as there before: less than it takes
		// to start a command, and the looks to come see the rest.
		w.wg.Go(func() { w.look(watched, r.user) })
	}
	return watched, r, nil
}

// enter adds a run to its user's, and tells whether the user was past the quota as last
// seen, and how long that look took.
func (w *diskWatch) enter(r *diskRun, userID string) (isOver bool, took time.Duration, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	u := w.users[userID]
	if u == nil {
		u = &diskUser{id: userID, turn: make(chan struct{}, 1), runs: make(map[*diskRun]bool)}
		w.users[userID] = u
	}
	if wait := time.Until(u.until); wait > 0 {
		err := w.exceeded(u.low, fmt.Sprintf("the last runs went on writing; the next may start in %s, and should delete files", wait.Round(time.Second)))
		err.RetryAfter = wait
		return false, 0, err
	}
	r.user = u
	u.runs[r] = true
	if !u.watched {
		u.watched = true
		w.wg.Go(func() { w.follow(u) })
	}
	return u.isOver, u.took, nil
}

// end ends the watching of a run.
func (r *diskRun) end() {
	if r == nil {
		return
	}
	r.watch.mu.Lock()
	delete(r.user.runs, r)
	r.watch.mu.Unlock()
	r.cancel(nil)
}

// forget lets a user start anew whose directory was removed.
func (w *diskWatch) forget(userID string) {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if u := w.users[userID]; u != nil {
		u.isOver, u.strikes, u.until = false, 0, time.Time{}
	}
}

// settle is asked when the run has done its work: was it one that is to be
// stopped? Of a user who is past the quota it looks once more, so that no run is
// too short to be caught.
func (r *diskRun) settle(ctx context.Context) error {
	if r == nil {
		return nil
	}
	r.watch.mu.Lock()
	isOver := r.user.isOver
	r.watch.mu.Unlock()
	if isOver {
		r.watch.look(ctx, r.user)
	}
	r.watch.mu.Lock()
	defer r.watch.mu.Unlock()
	return r.err
}

// follow looks at a user's directory as long as runs go, and once after.
func (w *diskWatch) follow(u *diskUser) {
	for {
		w.mu.Lock()
		pause := min(max(lookEvery, lookShare*u.took), lookAtMost)
		w.mu.Unlock()
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-w.root.Done():
			timer.Stop()
			return
		}
		w.mu.Lock()
		wasIdle := len(u.runs) == 0
		w.mu.Unlock()
		w.look(w.root, u)
		if wasIdle && w.leave(u) {
			return
		}
	}
}

// leave ends the following of a user without runs; one within the quota is
// forgotten.
func (w *diskWatch) leave(u *diskUser) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(u.runs) > 0 {
		return false
	}
	u.watched = false
	if !u.isOver {
		delete(w.users, u.id)
	}
	return true
}

// look measures the user's directory and judges the runs that were going when it
// began. One look at a user at a time: else an older one could judge by less than
// was there.
func (w *diskWatch) look(ctx context.Context, u *diskUser) {
	select {
	case u.turn <- struct{}{}:
	case <-ctx.Done():
		return
	}
	defer func() { <-u.turn }()
	w.mu.Lock()
	runs := slices.Collect(maps.Keys(u.runs))
	w.mu.Unlock()
	start := time.Now()
	usage, err := w.measure(ctx, u.id)
	took := time.Since(start)

	w.mu.Lock()
	defer w.mu.Unlock()
	u.took = took
	switch {
	case ctx.Err() != nil: // given up, not failed
	case protocol.CodeOf(err) == protocol.CodeNotFound && err != nil:
		u.isOver = false // no run is going: the directory was removed
	case err != nil:
		w.log.WarnContext(ctx, "directory of user cannot be counted", logline.KeyUser, logline.User(u.id), "error", err)
		if u.uncounted++; u.uncounted >= maxUncounted {
			w.stop(runs, protocol.Errorf(protocol.CodeDiskQuotaExceeded, "what the user's directory holds cannot be counted: %w", err))
		}
	default:
		u.uncounted = 0
		w.judge(u, runs, usage)
	}
}

func (w *diskWatch) judge(u *diskUser, runs []*diskRun, usage int64) {
	var heavy []*diskRun
	for _, r := range runs {
		if r.low < 0 || usage < r.low {
			r.low = usage
		}
		if usage > w.quota && usage-r.low > w.slack() {
			heavy = append(heavy, r)
		}
	}
	w.stop(heavy, w.exceeded(usage, "delete files; runs that only read or delete are let through"))
	switch {
	case usage <= w.quota:
		u.isOver, u.strikes, u.until = false, 0, time.Time{}
	case !u.isOver:
		u.isOver, u.low = true, usage
	case usage < u.low:
		u.low, u.until = usage, time.Time{}
	case usage-u.low > w.slack():
		u.low = usage
		if u.strikes++; u.strikes > freeStrikes {
			u.until = time.Now().Add(min(time.Second<<min(u.strikes-freeStrikes, 20), maxPause))
		}
	}
}

func (w *diskWatch) stop(runs []*diskRun, why *protocol.Error) {
	for _, r := range runs {
		if r.err == nil {
			r.err = why
			r.cancel(why)
		}
	}
}

func (w *diskWatch) exceeded(usage int64, advice string) *protocol.Error {
	return protocol.Errorf(protocol.CodeDiskQuotaExceeded,
		"the user's directory holds %d bytes, past the disk quota of %d (soft: counted by the daemon); %s", usage, w.quota, advice)
}
