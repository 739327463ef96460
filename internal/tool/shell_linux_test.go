package tool

import (
	"strings"
	"testing"
)

// FuzzReports: whatever commands write to the shell's descriptor, in whatever
// pieces, costs no memory and gives nothing but whole reports.
func FuzzReports(f *testing.F) {
	f.Add([]byte("1 0 /workspace\n\x002 127 /tmp/a\nb\n\x00"), 3)
	f.Add([]byte("\x00\x00 \x00x 0 /\x001 x /\x00"), 1)
	f.Add([]byte(strings.Repeat("1", 10000)), 4096)
	f.Fuzz(func(t *testing.T, all []byte, size int) {
		r := reports{to: make(chan report, 16)}
		size = min(max(size, 1), 64<<10)
		for len(all) > 0 {
			n := min(size, len(all))
			r.take(all[:n])
			all = all[n:]
			if len(r.rest) > maxReportBytes {
				t.Fatalf("%d bytes are kept", len(r.rest))
			}
		}
		for len(r.to) > 0 {
			if one := <-r.to; one.dir != "" && !strings.HasPrefix(one.dir, "/") {
				t.Errorf("%+v", one)
			}
		}
	})
}

func TestReportsArePutTogether(t *testing.T) {
	r := reports{to: make(chan report, 16)}
	for _, b := range []byte("1 0 /workspace\n\x00 nonsense \x002 127 /a\nb\n\x003 1 \x00") {
		r.take([]byte{b})
	}
	for _, want := range []report{{1, 0, "/workspace"}, {2, 127, "/a\nb"}, {3, 1, ""}} {
		if got := <-r.to; got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
	}
	if len(r.to) != 0 {
		t.Errorf("%d more", len(r.to))
	}
}
