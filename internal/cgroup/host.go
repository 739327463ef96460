package cgroup

import "os"

// host is the machine as this package needs it. The tests have one in memory.
type host interface {
	pid() int
	// read returns a whole file of /proc.
	read(path string) (string, error)
	// writable says with which error this process may not write to path.
	writable(path string) error
	open(dir string) (tree, error)
	// pin holds on to a process, so that a kill can hit no other one.
	pin(pid int) (pinned, error)
}

type pinned interface {
	kill() error
	Close() error
}

// tree is a group and what is beneath it. Names are slash-separated, relative to
// the group, and lead to nothing outside of it.
type tree interface {
	path() string
	read(name string) (string, error)
	// write gives value to an existing file in one write, as the kernel asks.
	write(name, value string) error
	mkdir(name string) error
	rmdir(name string) error
	// groups are the names of the groups directly in name.
	groups(name string) ([]string, error)
	open(name string) (tree, error)
	dir(name string) (*os.File, error)
	// lock takes the group for as long as the tree is open, or says that another has it.
	lock() error
	Close() error
}
