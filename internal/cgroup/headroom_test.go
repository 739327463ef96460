package cgroup

import (
	"io/fs"
	"maps"
	"testing"
)

// textHost is a host of which only files can be read.
type textHost struct {
	host

	files map[string]string
}

func (h textHost) read(name string) (string, error) {
	text, ok := h.files[name]
	if !ok {
		return "", fs.ErrNotExist
	}
	return text, nil
}

func TestHeadroomIsTheLeastThatAnyGroupAboveLeaves(t *testing.T) {
	const (
		unified = "40 30 0:37 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
		legacy  = "31 30 0:28 / /cg/memory rw - cgroup cgroup rw,memory\n"
		inside  = "40 30 0:37 /box /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
	)
	v2 := func(dir, limit, current, unused string) map[string]string {
		return map[string]string{dir + "/memory.max": limit, dir + "/memory.current": current, dir + "/memory.stat": "anon 1\ninactive_file " + unused + "\n"}
	}
	v1 := func(dir, limit, used string) map[string]string {
		return map[string]string{dir + "/memory.limit_in_bytes": limit, dir + "/memory.usage_in_bytes": used, dir + "/memory.stat": "total_inactive_file 5\n"}
	}
	tests := []struct {
		name, mounts, own string
		groups            []map[string]string
		want              int64
		bounded           bool
	}{
		{name: "no limit anywhere", mounts: unified, own: "0::/a/b\n", groups: []map[string]string{v2("/sys/fs/cgroup/a/b", "max\n", "10\n", "0"), v2("/sys/fs/cgroup/a", "max\n", "10\n", "0")}},
		{name: "the parent's is less", mounts: unified, own: "0::/a/b\n", groups: []map[string]string{v2("/sys/fs/cgroup/a/b", "1000\n", "10\n", "0"), v2("/sys/fs/cgroup/a", "500\n", "400\n", "50")}, want: 150, bounded: true},
		{name: "over its limit", mounts: unified, own: "0::/a\n", groups: []map[string]string{v2("/sys/fs/cgroup/a", "500\n", "700\n", "0")}, want: 0, bounded: true},
		{name: "in a container's own view", mounts: inside, own: "0::/box\n", groups: []map[string]string{v2("/sys/fs/cgroup", "500\n", "100\n", "0")}, want: 400, bounded: true},
		{name: "v1", mounts: legacy, own: "4:cpu:/x\n3:memory:/a\n", groups: []map[string]string{v1("/cg/memory/a", "1000", "100"), v1("/cg/memory", "9223372036854771712", "200")}, want: 905, bounded: true},
		{name: "v1 without a limit", mounts: legacy, own: "3:memory:/\n", groups: []map[string]string{v1("/cg/memory", "9223372036854771712", "200")}},
		{name: "a group outside of what is seen", mounts: unified, own: "0::/../x\n"},
		{name: "files that are no numbers", mounts: unified, own: "0::/a\n", groups: []map[string]string{v2("/sys/fs/cgroup/a", "5", "x", "0")}},
		{name: "no mounts", own: "0::/\n"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			files := map[string]string{"/proc/self/mountinfo": test.mounts, "/proc/self/cgroup": test.own}
			for _, group := range test.groups {
				maps.Copy(files, group)
			}
			got, bounded := headroom(textHost{files: files})
			if got != test.want || bounded != test.bounded {
				t.Errorf("%d, %v; want %d, %v", got, bounded, test.want, test.bounded)
			}
		})
	}
}
