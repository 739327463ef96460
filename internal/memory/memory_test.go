package memory

import (
	"os"
	"strings"
	"testing"
	"testing/fstest"
)

func TestRoom(t *testing.T) {
	const plenty = "MemTotal:  16384000 kB\nMemFree: 1 kB\nMemAvailable:  8192000 kB\n"
	calm := "some avg10=40.00 avg60=0.00 avg300=0.00 total=1\nfull avg10=9.99 avg60=50.00 avg300=0.00 total=1\n"
	tests := []struct {
		name     string
		files    map[string]string
		headroom int64 // -1 = not bounded
		reason   string
	}{
		{"plenty", map[string]string{"meminfo": plenty, stallFile: calm}, -1, ""},
		{"no PSI in the kernel", map[string]string{"meminfo": plenty}, -1, ""},
		{"nothing to be read", nil, -1, ""},
		{"no figures in it", map[string]string{"meminfo": "MemTotal: x kB\n", stallFile: "full avg10=x"}, -1, ""},
		{"little available", map[string]string{"meminfo": "MemTotal: 16384000 kB\nMemAvailable: 512000 kB\n"}, -1, "500 MiB of memory are available, and 800 MiB"},
		{"small machine", map[string]string{"meminfo": "MemTotal: 524288 kB\nMemAvailable: 131071 kB\n"}, -1, "127 MiB of memory are available, and 128 MiB"},
		{"small machine with enough", map[string]string{"meminfo": "MemTotal: 524288 kB\nMemAvailable: 131072 kB\n"}, -1, ""},
		{"large machine keeps 1 GiB", map[string]string{"meminfo": "MemTotal: 1048576000 kB\nMemAvailable: 1048576 kB\n"}, -1, ""},
		{"own cgroup nearly full", map[string]string{"meminfo": plenty}, 100 << 20, "own cgroup leaves 100 MiB"},
		{"own cgroup with room", map[string]string{"meminfo": plenty}, 200 << 20, ""},
		{"stalled", map[string]string{"meminfo": plenty, stallFile: strings.Replace(calm, "9.99", "10.4", 1)}, -1, "10 % of the last ten seconds"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			proc := fstest.MapFS{}
			for name, text := range test.files {
				proc[name] = &fstest.MapFile{Data: []byte(text)}
			}
			g := Gauge{Proc: proc, Headroom: func() (int64, bool) { return test.headroom, test.headroom >= 0 }}
			reason, ok := g.Room()
			if ok != (test.reason == "") || !strings.Contains(reason, test.reason) {
				t.Errorf("%v, %q; want %q", ok, reason, test.reason)
			}
		})
	}
}

func TestThisMachineTellsItsMemory(t *testing.T) {
	total, available := Gauge{Proc: os.DirFS("/proc")}.meminfo()
	if total < available || available <= 0 {
		t.Errorf("%d bytes in all, %d available", total, available)
	}
}
