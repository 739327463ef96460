package tool

import (
	"encoding/binary"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"carrel/internal/fdpass"
)

// FuzzHostReply has a tool host answer anything, with descriptors nobody asked for. The
// worker gets one outcome or an error, and keeps none of the descriptors: a tier that
// could hand them over without end would leave the worker none of its own.
func FuzzHostReply(f *testing.F) {
	for _, text := range []string{"", "{}", `{"outcome":{"code":3,"signal":"SIGKILL"}}`, `{"outcome":null}`, `{"error":"x"}`, `{"file":{}}`, `[]`, "x"} {
		frame := binary.BigEndian.AppendUint32(nil, uint32(len(text)))
		f.Add(append(frame, text...), 0)
		f.Add(append(frame, text...), 3)
	}
	f.Add([]byte{0xff, 0xff, 0xff, 0xff}, 1)
	f.Fuzz(func(t *testing.T, answer []byte, files int) {
		if len(answer) == 0 || len(answer) > 32<<10 || files < 0 || files > 16 {
			return
		}
		for _, ask := range []func(*Host) (bool, error){
			func(h *Host) (bool, error) { _, err := h.ask(t.Context(), hello{}); return true, err },
			func(h *Host) (bool, error) {
				p, err := openPipes(false)
				if err != nil {
					t.Fatal(err)
				}
				defer p.close()
				o, err := h.run(t.Context(), &runRequest{Argv: []string{"x"}}, p)
				return o != nil, err
			},
		} {
			conn, theirs, err := fdpass.Pair()
			if err != nil {
				t.Fatal(err)
			}
			var rights []byte
			if files > 0 {
				fds := make([]int, files)
				for i := range fds {
					fds[i] = int(theirs.Fd())
				}
				rights = unix.UnixRights(fds...)
			}
			if err := unix.Sendmsg(int(theirs.Fd()), answer, rights, nil, 0); err != nil {
				t.Fatal(err)
			}
			if err := unix.Shutdown(int(theirs.Fd()), unix.SHUT_WR); err != nil {
				t.Fatal(err)
			}
			before := openDescriptors(t)
			ok, err := ask(&Host{conn: conn})
			if !ok && err == nil {
				t.Error("neither an answer nor an error")
			}
			if after := openDescriptors(t); after > before {
				t.Errorf("%d descriptors are open, %d were before", after, before)
			}
			_, _ = theirs.Close(), conn.Close()
		}
	})
}

func openDescriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
