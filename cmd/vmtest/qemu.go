package main

import (
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
)

// File descriptors QEMU inherits, as os/exec numbers its ExtraFiles.
const (
	portDescriptor    = 3
	monitorDescriptor = 4
)

// devices is what one guest is made of.
type devices struct {
	tree      string // the unpacked QEMU
	kernel    string
	initramfs string
	console   string // file the console is written to
	scratch   string // disk image, or empty
	image     string // disk image that must not be written, or empty
	shares    []share
}

// qemuArguments returns the arguments for QEMU itself.
func qemuArguments(o options, d devices) []string {
	// QEMU would keep up to 1 GiB of translated code.
	processor, accelerator := "max", "tcg,thread=multi,tb-size=384"
	if o.accel == "kvm" {
		processor, accelerator = "host", "kvm"
	}
	half := strconv.FormatInt(int64(o.memory)/2/mib, 10)
	whole := strconv.FormatInt(int64(o.memory)/2/mib*2, 10)
	a := []string{
		"-L", filepath.Join(d.tree, "usr/share/qemu"), "-L", filepath.Join(d.tree, "usr/share/seabios"),
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-machine", "q35", "-accel", accelerator, "-cpu", processor,
		// Two sockets, each a NUMA node with half of the memory: Linux then
		// offers all the placement that a two-socket server would.
		"-smp", "2,sockets=2,cores=1,threads=1", "-m", whole + "M",
		"-object", "memory-backend-ram,id=mem0,size=" + half + "M",
		"-object", "memory-backend-ram,id=mem1,size=" + half + "M",
		"-numa", "node,nodeid=0,cpus=0,memdev=mem0", "-numa", "node,nodeid=1,cpus=1,memdev=mem1",
		"-numa", "dist,src=0,dst=1,val=21",
		"-kernel", d.kernel, "-initrd", d.initramfs, "-append", kernelCommandLine(o),
		"-chardev", "file,id=console,path=" + escape(d.console), "-serial", "chardev:console",
		// Sockets and not stdio: QEMU's stdio stops the guest's writes once it
		// reads the end of /dev/null, which go test gives as standard input.
		"-device", "virtio-serial-pci",
		"-chardev", fmt.Sprintf("socket,id=port,fd=%d", portDescriptor),
		"-device", "virtserialport,chardev=port,name=" + portName,
		"-chardev", fmt.Sprintf("socket,id=monitor,fd=%d", monitorDescriptor),
		"-mon", "chardev=monitor,mode=readline",
	}
	for _, s := range d.shares {
		fsdev := "local,id=" + s.Tag + ",path=" + escape(s.host) + ",security_model=none,multidevs=remap"
		if !s.Writable {
			fsdev += ",readonly=on"
		}
		a = append(a, "-fsdev", fsdev, "-device", "virtio-9p-pci,fsdev="+s.Tag+",mount_tag="+s.Tag)
	}
	if d.scratch != "" {
		// The image is deleted with the guest, so no write has to be durable.
		a = append(a, "-drive", "if=none,id=scratch,format=raw,cache=unsafe,file="+escape(d.scratch),
			"-device", "virtio-blk-pci,drive=scratch,serial=scratch")
	}
	if d.image != "" {
		a = append(a, "-drive", "if=none,id="+imageSerial+",format=raw,cache=unsafe,snapshot=on,file="+escape(d.image),
			"-device", "virtio-blk-pci,drive="+imageSerial+",serial="+imageSerial)
	}
	if o.tap != "" {
		a = append(a, "-netdev", "tap,id=net,ifname="+o.tap+",script=no,downscript=no",
			"-device", "virtio-net-pci,netdev=net,romfile=,mac="+hardwareAddress(o.tap))
	}
	return a
}

// hardwareAddress derives the guest's from the name of the tap interface: stable
// from run to run, and different for two guests on one bridge. 52:54:00 is
// what QEMU itself takes for its guests.
func hardwareAddress(tap string) string {
	h := sha256.Sum256([]byte(tap))
	return fmt.Sprintf("52:54:00:%02x:%02x:%02x", h[0], h[1], h[2])
}

// kernelCommandLine is what the kernel gets. Not "quiet": the console is the
// only witness when a guest dies. nokaslr makes the addresses in a hang's
// register dump comparable with System.map. tsc=reliable, because Linux does
// not trust the counter of an emulated two-socket machine though QEMU derives
// both from one, and would read the time from an emulated HPET: ten times
// slower, in the program and in every BPF program.
func kernelCommandLine(o options) string {
	line := "console=ttyS0 panic=-1 nokaslr tsc=reliable cgroup_no_v1=all psi=1"
	if o.cmdline != "" {
		line += " " + o.cmdline
	}
	return line
}

// escape doubles commas, which separate QEMU's options.
func escape(path string) string {
	var b []byte
	for i := range len(path) {
		if path[i] == ',' {
			b = append(b, ',')
		}
		b = append(b, path[i])
	}
	return string(b)
}

// makeScratch makes a sparse disk image with an ext4 on it, by the guest tree's
// own mkfs: in the guest the same takes seconds.
func makeScratch(file, rootfs string, size byteSize) error {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("make scratch disk: %w", err)
	}
	defer f.Close()
	if err := f.Truncate(int64(size)); err != nil {
		return fmt.Errorf("make scratch disk: %w", err)
	}
	command := append(foreign(rootfs, "usr/sbin/mkfs.ext4"),
		"-q", "-F", "-L", "scratch", "-E", "lazy_itable_init=1,lazy_journal_init=1", file)
	if out, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("format scratch disk: %w: %s", err, out)
	}
	return nil
}
