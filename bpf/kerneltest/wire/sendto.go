package wire

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// sendto is send(2), which is the system call sendto without an address.
func sendto(fd int, data []byte) (int, error) {
	n, _, errno := unix.Syscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&data[0])), uintptr(len(data)), 0, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
