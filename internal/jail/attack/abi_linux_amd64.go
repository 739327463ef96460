package attack

import (
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// x32GetPID asks for its pid by the ABI of 32-bit pointers on 64-bit registers,
// which has the same architecture number and other call numbers.
func x32GetPID(*Target) error {
	const bit = 0x40000000 // __X32_SYSCALL_BIT
	pid, _, errno := unix.Syscall(bit|unix.SYS_GETPID, 0, 0, 0)
	return checkPID(int(int32(pid)), errno)
}

// i386GetPID asks for its pid by the gate of 32-bit programs. Go has no word for
// that, so it is machine code. A kernel without such a gate ends this process.
func i386GetPID(*Target) error {
	code := []byte{
		0x53,              // push rbx
		0xb8, 20, 0, 0, 0, // mov eax, 20 (getpid of i386)
		0xcd, 0x80, // int 0x80
		0x48, 0x98, // cdqe: a negative errno is negative in 64 bits, too
		0x5b, // pop rbx
		0xc3, // ret: the result is where Go looks for it
	}
	page, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	copy(page, code)
	if err := unix.Mprotect(page, unix.PROT_READ|unix.PROT_EXEC); err != nil {
		return err
	}
	// A func value is a pointer to a pointer to its code.
	entry := unsafe.Pointer(&page[0])
	closure := unsafe.Pointer(&entry)
	got := (*(*func() int)(unsafe.Pointer(&closure)))()
	if got < 0 {
		return checkPID(0, unix.Errno(-got))
	}
	return checkPID(got, 0)
}

func checkPID(got int, errno unix.Errno) error {
	switch {
	case errno != 0:
		return errno
	case got != os.Getpid():
		return fmt.Errorf("got %d instead of the pid", got)
	}
	return nil
}
