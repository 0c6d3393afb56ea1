// Command vmtest runs one program as root inside a throwaway virtual machine
// and carries its output and exit status back. It is made for the -exec flag
// of go test:
//
//	go test -tags kernel -exec "$PWD/bin/vmtest" ./agent/cgroup
//	bin/vmtest -kernel 6.12 -- /usr/bin/pg_config --version
//
// The path is absolute because go test runs it from the folder of the package.
//
// The guest is a Debian kernel and a Debian tree that setup.sh puts into the
// cache folder. It has two CPUs in two sockets, two NUMA nodes at distance 21,
// cgroup v2 with every controller enabled, PSI, BTF, an ext4 disk at /scratch,
// and no network but lo. -image adds a disk at /state whose image the guest's
// writes do not reach, and -tap a network interface, down and without address,
// that ends in an interface of the host. The module that contains the working
// directory is there under its own path. All the guest writes is thrown away, save
// what it writes below the directory named by -out, GOCOVERDIR or the coverage flags
// of go test.
//
// It is not a test framework and no container runtime: it knows nothing of what
// it runs, except that a test binary (a name ending in .test) must not skip.
//
// # Failure
//
// The exit status is the program's own; 128 and the signal's number if a signal
// ended it; 125 if the machine could not be set up. A run that ended with 0
// still fails with 1 when a test was skipped or when the kernel printed an oops,
// a BUG or a WARNING. A guest whose heartbeat stops is killed after -hang and
// the run fails with 1; nothing is ever tried twice. In each case the end of
// the console is printed. No QEMU outlives vmtest, however vmtest ends.
//
// # Concurrency
//
// Runs are independent of each other and hold the cache folder's use.lock
// shared, so that setup.sh replaces no tree under a running guest.
//
// # Design
//
// The same binary is both sides. On the host it writes an initramfs holding
// itself as /init, the kernel modules a 9p root needs, and the job. As process 1
// of the guest it mounts everything, runs the job, and sends output, heartbeats
// and the exit status as frames over one virtio serial port. One port, because
// frames keep their order: when the exit status arrives, so has all output.
//
// QEMU runs by emulation unless VMTEST_ACCEL=kvm says otherwise: /dev/kvm can
// be there and open without an error where a virtual machine under it never
// comes up, so opening it proves nothing.
//
// To add a file system or directory to the guest, add a line to a table in
// mounts.go; to add a device, a line in qemu.go and its module in initramfs.go; to
// make a kernel message a failure, a pattern in console.go.
package main
