package local

import (
	"errors"
	"io"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"carrel/internal/engine"
)

// The worker has the line for as long as it lives: it is open at the other end
// though the host has closed its copy, and it ends with the worker.
func TestWorkerHoldsItsLineToTheBroker(t *testing.T) {
	e := newEngine(t)
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "ours"), os.NewFile(uintptr(fds[1]), "theirs")
	defer func() { _ = ours.Close() }()
	p, err := e.Start(t.Context(), engine.Spec{UserID: "ana"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Kill()
		<-p.Done()
	})
	err = p.Bind(t.Context(), engine.Binding{UserID: "ana", Broker: theirs})
	_ = theirs.Close()
	if err != nil {
		t.Fatal(err)
	}
	peek := func() (int, error) {
		n, _, err := unix.Recvfrom(fds[0], make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
		return n, err
	}
	if n, err := peek(); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("nobody holds the worker's end: %d, %v", n, err)
	}
	p.Kill()
	<-p.Done()
	if _, err := ours.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the line outlives its worker: %v", err)
	}
}
