package main

import (
	"bytes"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"carrel/internal/ordeal"
	"carrel/protocol"
)

// byManager is a command that becomes `carrel serve` as systemd starts it: with sockets
// from descriptor 3 on, and its own pid in the environment.
func byManager(t *testing.T, sockets ...*os.File) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", `export LISTEN_PID=$$; exec "$0" serve`, program(t)) //nolint:noctx // ended by ordeal, or waited for
	cmd.ExtraFiles = sockets
	return cmd
}

// listening is a socket that outlives daemons, as carrel.socket does.
func listening(t *testing.T, network, address string) (descriptor *os.File, at string) {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	filer, ok := l.(interface{ File() (*os.File, error) })
	if !ok {
		t.Fatalf("%T has no descriptor", l)
	}
	f, err := filer.File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f, l.Addr().String()
}

// notified is the other end of NOTIFY_SOCKET, and its path.
func notified(t *testing.T) (*net.UnixConn, string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "carrel-") //nolint:usetesting // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn, path
}

// awaitTold reads what the daemon tells until it begins so.
func awaitTold(t *testing.T, conn *net.UnixConn, prefix string) string {
	t.Helper()
	if err := conn.SetReadDeadline(time.Now().Add(ordeal.Patience)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatalf("%q is not told: %v", prefix, err)
		}
		if told := string(buf[:n]); strings.HasPrefix(told, prefix) {
			return told
		}
	}
}

func TestSystemdIsToldThatTheDaemonIsReadyAliveReloadsAndEnds(t *testing.T) {
	conn, path := notified(t)
	socket, address := listening(t, "tcp", "127.0.0.1:0")
	d := watch(t, ordeal.ServeBy(t, byManager(t, socket), t.TempDir(),
		"LISTEN_FDS=1", "NOTIFY_SOCKET="+path, "WATCHDOG_USEC=600000", "CARREL_DRAIN_TIMEOUT=7s"))
	if d.url != "http://"+address {
		t.Errorf("it listens on %s, the socket is %s", d.url, address)
	}
	if told := awaitTold(t, conn, "READY=1"); !strings.Contains(told, "STATUS=serving on "+address) {
		t.Errorf("%q", told)
	}
	awaitTold(t, conn, "WATCHDOG=1")
	if err := d.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	awaitTold(t, conn, "RELOADING=1\nMONOTONIC_USEC=")
	awaitTold(t, conn, "READY=1")
	awaitTold(t, conn, "WATCHDOG=1")
	d.stop()
	if told := awaitTold(t, conn, "STOPPING=1"); !strings.Contains(told, "EXTEND_TIMEOUT_USEC=42000000\n") {
		t.Errorf("%q", told)
	}
}

// TestRestartWithAKeptSocketDropsNeitherRunsNorConnections is an upgrade as systemd does
// it: the old daemon drains, the new one gets the same socket.
func TestRestartWithAKeptSocketDropsNeitherRunsNorConnections(t *testing.T) {
	base := t.TempDir()
	socket, _ := listening(t, "tcp", "127.0.0.1:0")
	// Runs may take as long as a loaded machine takes for the rest.
	with := []string{"LISTEN_FDS=1", "CARREL_DRAIN_TIMEOUT=5m"}
	last := watch(t, ordeal.ServeBy(t, byManager(t, socket), base, with...))
	run := last.start("ana", `echo begun; until [ -e enough ]; do sleep 0.05; done; echo ended`, "begun")
	ended := make(chan []protocol.Event, 1)
	go func() { ended <- last.events(run.RunID, 0) }()

	// Files are put over connections that stand: this one is kept open by a request
	// whose body has not ended.
	body, more, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	put := make(chan error, 1)
	go func() { put <- putFile(t, last, body) }()
	ordeal.Eventually(t, "the upload is under way", func() bool {
		staged, err := filepath.Glob(filepath.Join(base, "tmp", "*"))
		return err == nil && len(staged) > 0
	})

	if err := last.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	ordeal.Eventually(t, "the old daemon drains", func() bool { return strings.Contains(last.log.String(), "draining") })
	queued := make(chan protocol.Result, 1)
	go func() { queued <- runAnew(t, last.url, "bob", "echo new") }()

	_ = more.Close() // the upload ends, and with it the old daemon's run
	if err := <-put; err != nil {
		t.Errorf("the upload that was under way: %v", err)
	}
	if err := last.cmd.Wait(); err != nil {
		t.Errorf("the old daemon ended with %v:\n%s", err, last.log)
	}
	events := <-ended
	if end := events[len(events)-1]; end.Type != protocol.EventRunFinished || !strings.Contains(string(end.Data), `begun\nended`) {
		t.Errorf("the run of the old daemon ended with %s %s", end.Type, end.Data)
	}
	select {
	case r := <-queued:
		t.Fatalf("the draining daemon answered a new connection: %+v", r)
	default:
	}

	next := watch(t, ordeal.ServeBy(t, byManager(t, socket), base, with...))
	if r := <-queued; r.Content != "new\n" {
		t.Errorf("the connection that came between has %+v", r)
	}
	if r, err := next.client.Run(t.Context(), run.RunID); err != nil || r.Status != protocol.StatusFinished {
		t.Errorf("the old daemon's run is %+v, %v", r, err)
	}
	next.stop()
}

// putFile uploads what body holds as the file that ends the run.
func putFile(t *testing.T, d *daemon, body *os.File) error {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, d.url+"/v1/users/ana/files/enough", body)
	if err != nil {
		return err
	}
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// runAnew runs a message over a connection of its own.
func runAnew(t *testing.T, url, user, message string) (r protocol.Result) {
	t.Helper()
	body, err := json.Marshal(protocol.ExecuteRequest{UserID: user, Message: message})
	if err != nil {
		t.Error(err)
		return r
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/v1/execute", bytes.NewReader(body))
	if err != nil {
		t.Error(err)
		return r
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		t.Error(err)
		return r
	}
	defer func() { _ = resp.Body.Close() }()
	if err := json.NewDecoder(resp.Body).Decode(&r); err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("status %d, %v", resp.StatusCode, err)
	}
	return r
}

func TestSocketOfSystemdIsHeldToTheRulesOfAnAddress(t *testing.T) {
	inet, _ := listening(t, "tcp", "127.0.0.1:0")
	open, _ := listening(t, "tcp", "0.0.0.0:0")
	dir, err := os.MkdirTemp("", "carrel-") //nolint:usetesting // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	local, _ := listening(t, "unix", filepath.Join(dir, "socket"))
	for _, c := range []struct {
		name    string
		sockets []*os.File
		count   string
		says    string
	}{
		{"that everybody reaches, without keys", []*os.File{open}, "1", "is not a loopback address"},
		{"of another kind", []*os.File{local}, "1", "TCP is wanted"},
		{"that is no socket", []*os.File{os.Stderr}, "1", "socket handed over by systemd"},
		{"beside another", []*os.File{inet, inet}, "2", "handed over 2 sockets"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd := byManager(t, c.sockets...)
			cmd.Env = environment(t.TempDir(), "LISTEN_FDS="+c.count)
			out, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(out), c.says) {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}

func TestRunsThatOutlastTheDrainTimeAreInterrupted(t *testing.T) {
	base := t.TempDir()
	d := serve(t, base, "CARREL_DRAIN_TIMEOUT=0s")
	run := d.start("ana", "echo begun; sleep 1000", "begun")
	d.stop()
	next := serve(t, base)
	if end := next.ending(run.RunID); end.Code != protocol.CodeInterrupted || !strings.Contains(end.Message, "was shut down") {
		t.Errorf("the run ended with %+v", end)
	}
	next.stop()
}
