// Package systemd is a daemon's side of what a unit agrees on with it: a socket that was
// opened for it ([Listener]), that it is ready, reloads or ends ([Manager]), and that it
// is alive ([Manager.Watch]). Where no systemd has started the daemon, nothing of this
// does anything.
//
// The protocols are those of sd_listen_fds(3), sd_notify(3) and sd_watchdog_enabled(3),
// as github.com/coreos/go-systemd speaks them; libsystemd itself would take cgo.
package systemd
