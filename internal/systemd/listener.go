package systemd

import (
	"errors"
	"fmt"
	"net"

	"github.com/coreos/go-systemd/v22/activation"
)

// Listener is the TCP socket that systemd opened for this process and keeps: it is nil
// where there is none. To close it ends this process's part alone: connections that come
// then wait in the kernel's queue for the next process that is given the socket.
//
// It takes the socket out of the environment, so it is asked once, before anything else
// opens a descriptor.
func Listener() (net.Listener, error) {
	files := activation.Files(true)
	if len(files) == 0 {
		return nil, nil //nolint:nilnil // as the comment says
	}
	defer func() {
		for _, f := range files {
			_ = f.Close() // the listener has a descriptor of its own
		}
	}()
	if len(files) > 1 {
		return nil, fmt.Errorf("systemd handed over %d sockets, one is wanted: leave one ListenStream= in carrel.socket", len(files))
	}
	listener, err := net.FileListener(files[0])
	if err != nil {
		return nil, fmt.Errorf("socket handed over by systemd: %w", err)
	}
	if _, isTCP := listener.(*net.TCPListener); !isTCP {
		return nil, errors.Join(
			fmt.Errorf("systemd handed over a %s socket, TCP is wanted: ListenStream=HOST:PORT in carrel.socket", listener.Addr().Network()),
			listener.Close())
	}
	return listener, nil
}
