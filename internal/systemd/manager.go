package systemd

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// Manager is the service manager that has started this process. Where there is none, its
// methods do nothing. What it cannot be told is logged: a daemon does not end for that.
type Manager struct {
	log *slog.Logger
	// watchdog is how long the manager waits for a sign of life; 0 = it does not.
	watchdog time.Duration
}

// NewManager finds out whether there is a manager, and what it wants to be told.
func NewManager(log *slog.Logger) *Manager {
	m := &Manager{log: log}
	watchdog, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("systemd's watchdog is not fed", "error", err)
	}
	m.watchdog = watchdog
	return m
}

// Ready says that requests are answered. It also ends what Reloading began.
func (m *Manager) Ready(ctx context.Context, status string) {
	m.tell(ctx, daemon.SdNotifyReady+"\nSTATUS="+status)
}

// Reloading says that files are read again; Ready is to follow.
func (m *Manager) Reloading(ctx context.Context) {
	m.tell(ctx, daemon.SdNotifyReloading+"\n"+daemon.SdNotifyMonotonicUsec())
}

// Stopping says that the daemon ends, and how long that may take: a unit's
// TimeoutStopSec is extended to it, so it need not repeat the daemon's configuration.
func (m *Manager) Stopping(ctx context.Context, most time.Duration, status string) {
	m.tell(ctx, fmt.Sprintf("%s\nEXTEND_TIMEOUT_USEC=%d\nSTATUS=%s", daemon.SdNotifyStopping, most.Microseconds(), status))
}

func (m *Manager) tell(ctx context.Context, state string) {
	if _, err := daemon.SdNotify(false, state); err != nil {
		m.log.WarnContext(ctx, "systemd could not be told", "state", state, "error", err)
	}
}

// Watch asks alive again and again, and tells the manager of each answer without an
// error, until ctx ends. One that does not come, or is an error, is not told: the manager
// then ends this process (WatchdogSec), and starts another.
//
// alive gets a ctx that ends with Watch; while it has not answered it is not asked again.
// Watch waits for its last answer.
func (m *Manager) Watch(ctx context.Context, alive func(context.Context) error) {
	if m.watchdog == 0 {
		return
	}
	// A third: an answer may be late once, by twice as long as it takes to ask again.
	tick := time.NewTicker(max(m.watchdog/3, time.Millisecond))
	defer tick.Stop()
	answers, asked := make(chan error, 1), false
	var asking sync.WaitGroup
	defer asking.Wait()
	for {
		select {
		case <-tick.C:
			if !asked {
				asked = true
				asking.Go(func() { answers <- alive(ctx) })
			} else {
				m.log.WarnContext(ctx, "the daemon does not answer its own question whether it is alive", "watchdog", m.watchdog)
			}
		case err := <-answers:
			asked = false
			if err != nil {
				if ctx.Err() == nil {
					m.log.ErrorContext(ctx, "the daemon is not well, and systemd's watchdog is not fed", "error", err)
				}
				continue
			}
			m.tell(ctx, daemon.SdNotifyWatchdog)
		case <-ctx.Done():
			return
		}
	}
}
