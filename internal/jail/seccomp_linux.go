package jail

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// loadFilter puts every thread of this process under a filter (TSYNC). It needs
// no_new_privs, and holds for all children for ever.
func loadFilter(filter []unix.SockFilter) error {
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	thread, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		return fmt.Errorf("load filter: %w", errno)
	}
	if thread != 0 {
		return fmt.Errorf("load filter: thread %d could not be brought under it", thread)
	}
	return nil
}
