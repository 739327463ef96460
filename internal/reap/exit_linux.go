package reap

import "golang.org/x/sys/unix"

// Code is the shell's number for an end: the exit status, or 128 and the signal.
func (e Exit) Code() int {
	if e.Status.Signaled() {
		return 128 + int(e.Status.Signal())
	}
	return e.Status.ExitStatus()
}

// Signal names the signal that ended the process ("SIGKILL"), or is empty.
func (e Exit) Signal() string {
	if !e.Status.Signaled() {
		return ""
	}
	return unix.SignalName(e.Status.Signal())
}
