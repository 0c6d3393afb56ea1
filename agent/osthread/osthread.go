// Package osthread runs a function on an operating system thread that is
// thrown away afterwards, for work that changes the thread for good, such as
// entering a network namespace. It knows nothing of what the function does.
package osthread

import (
	"runtime"

	"golang.org/x/sys/unix"
)

// Discard runs f on a thread that ends with it, so that no other goroutine ever
// runs in the namespaces f entered. It blocks until f returned; a panic in f is
// not recovered.
//
// The main thread cannot end, and /proc/PID/ns and /proc/PID/net show its
// namespaces as the process's: where the scheduler hands it out, it is held
// while another one is taken.
func Discard(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			Discard(f)
			runtime.UnlockOSThread()
			return
		}
		f()
	}()
	<-done
}
