package bpf

import (
	"errors"
	"fmt"
	"runtime"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"
)

//go:generate go tool bpf2go -target bpfel -type io_key -type io_histogram ioLatency io_latency.bpf.c -- -O2 -g -Wall -Wextra -Werror -Wpadded -Iheaders -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu

// Kinds of IOLatency, enum io_kind.
const (
	ioRead uint32 = iota
	ioWrite
	ioFsync
)

// IOLatency times the block requests and the fsyncs of watched cgroups of version
// 2, in the kernel. Each of the two halves works, or not, by itself.
//
// A block request counts for the cgroup that its data is charged to, from its
// issue to the device to its end. Where the io controller is not enabled for a
// cgroup the kernel charges the next one above, so there is nothing to count. A
// file system's journal is charged to the root.
//
// An fsync is anything that passes vfs_fsync_range: fsync, fdatasync, msync,
// writes to files that are open for synchronous writing, and io_uring's.
//
// It is not safe for concurrent use.
type IOLatency struct {
	coll         *ebpf.Collection
	links        []link.Link
	block, fsync error
	watched      map[uint64]IOWatch
}

// IOWatch says what is timed of a cgroup.
type IOWatch struct{ Block, Fsync bool }

// OpenIOLatency attaches what this kernel lets it attach, and sees each half fire;
// dir is a directory on a disk, to which a small file is written for that. It
// fails when neither half works.
func OpenIOLatency(dir string) (*IOLatency, error) {
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, fmt.Errorf("raise limit of locked memory: %w", err)
	}
	spec, err := loadIoLatency()
	if err != nil {
		return nil, fmt.Errorf("read embedded object: %w", err)
	}
	first, err := queueFirst()
	if err == nil {
		err = spec.Variables["queue_first"].Set(first)
	}
	t := &IOLatency{watched: map[uint64]IOWatch{}, block: err}
	if err := t.load(spec); err != nil {
		return nil, err
	}
	if t.block == nil {
		t.block = t.attach("on_rq_issue", "on_rq_complete")
	}
	if t.block == nil {
		t.block = t.verifyBlock(dir)
	}
	if t.fsync == nil {
		t.fsync = t.attach("on_sync", "on_synced")
	}
	if t.fsync == nil {
		t.fsync = t.verifyFsync()
	}
	if t.block != nil && t.fsync != nil {
		return nil, errors.Join(fmt.Errorf("block: %w", t.block), fmt.Errorf("fsync: %w", t.fsync), t.Close())
	}
	return t, nil
}

// Block and Fsync return nil where that half works, else why it does not.
func (t *IOLatency) Block() error { return t.block }

// Fsync is Block's sister.
func (t *IOLatency) Fsync() error { return t.fsync }

// halves are the programs of each half.
func halves() (block, fsync []string) {
	return []string{"on_rq_issue", "on_rq_complete"}, []string{"on_sync", "on_synced"}
}

// load loads both halves, or the one that the kernel takes.
func (t *IOLatency) load(spec *ebpf.CollectionSpec) error {
	block, fsync := halves()
	without := func(names ...string) error {
		reduced := spec.Copy()
		for _, n := range names {
			delete(reduced.Programs, n)
		}
		var err error
		t.coll, err = newCollection(reduced)
		return err
	}
	if t.block == nil {
		err := without()
		if err == nil {
			return nil
		}
		if t.fsync = without(fsync...); t.fsync == nil {
			t.fsync = fmt.Errorf("load: %w", err)
			return nil
		}
		t.block = fmt.Errorf("load: %w", t.fsync)
		t.fsync = nil
	}
	if err := without(block...); err != nil {
		return errors.Join(fmt.Errorf("block: %w", t.block), fmt.Errorf("fsync: load: %w", err))
	}
	return nil
}

// attach attaches programs to what their sections name.
func (t *IOLatency) attach(names ...string) error {
	for _, name := range names {
		l, err := link.AttachTracing(link.TracingOptions{Program: t.coll.Programs[name]})
		if err != nil {
			return fmt.Errorf("attach %s: %w", name, err)
		}
		t.links = append(t.links, l)
	}
	return nil
}

// queueFirst says whether the tracepoint of issued requests has the queue before
// the request, and refuses a kernel whose bios do not say whose they are.
func queueFirst() (uint8, error) {
	kernel, err := sharedKernelTypes().Kernel()
	if err != nil {
		return 0, fmt.Errorf("read the kernel's BTF: %w", err)
	}
	var bio *btf.Struct
	if err := kernel.TypeByName("bio", &bio); err != nil {
		return 0, fmt.Errorf("find bio in the kernel's BTF: %w", err)
	}
	charged := false
	for _, m := range bio.Members {
		charged = charged || m.Name == "bi_blkg"
	}
	if !charged {
		return 0, errors.New("this kernel does not charge block requests to cgroups (CONFIG_BLK_CGROUP)")
	}
	var def *btf.Typedef
	if err := kernel.TypeByName("btf_trace_block_rq_issue", &def); err != nil {
		return 0, fmt.Errorf("find tracepoint block_rq_issue in the kernel's BTF: %w", err)
	}
	pointer, ok := btf.UnderlyingType(def.Type).(*btf.Pointer)
	if !ok {
		return 0, errors.New("tracepoint block_rq_issue has no prototype in the kernel's BTF")
	}
	proto, ok := pointer.Target.(*btf.FuncProto)
	if !ok {
		return 0, errors.New("tracepoint block_rq_issue has no prototype in the kernel's BTF")
	}
	switch len(proto.Params) { // the first is the kernel's own
	case 2:
		return 0, nil
	case 3:
		return 1, nil
	}
	return 0, fmt.Errorf("tracepoint block_rq_issue has %d arguments, 1 or 2 are known", len(proto.Params)-1)
}

// Set says which cgroups are timed, by their id. The others are forgotten with
// what was counted for them.
func (t *IOLatency) Set(watch map[uint64]IOWatch) error {
	var errs []error
	for id, w := range t.watched {
		for kind, on := range w.kinds() {
			if on && !watch[id].kinds()[kind] {
				err := t.histograms().Delete(ioLatencyIoKey{Cgroup: id, Kind: uint32(kind)})
				if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
					errs = append(errs, fmt.Errorf("forget cgroup %d: %w", id, err))
				}
			}
		}
	}
	before := t.watched
	t.watched = map[uint64]IOWatch{}
	for id, w := range watch {
		w.Block, w.Fsync = w.Block && t.block == nil, w.Fsync && t.fsync == nil
		for kind, on := range w.kinds() {
			if !on || before[id].kinds()[kind] {
				continue
			}
			err := t.histograms().Update(ioLatencyIoKey{Cgroup: id, Kind: uint32(kind)}, ioLatencyIoHistogram{}, ebpf.UpdateNoExist)
			if err != nil && !errors.Is(err, ebpf.ErrKeyExist) {
				errs = append(errs, fmt.Errorf("watch cgroup %d: %w", id, err))
			}
		}
		t.watched[id] = w
	}
	return errors.Join(errs...)
}

// kinds says by kind whether it is timed.
func (w IOWatch) kinds() [3]bool { return [3]bool{ioRead: w.Block, ioWrite: w.Block, ioFsync: w.Fsync} }

func (t *IOLatency) histograms() *ebpf.Map { return t.coll.Maps["io_histograms"] }

// Read returns what was counted for a cgroup since Set first named it: "read",
// "write" and "fsync", each also where nothing was counted yet, and none of a half
// that does not work.
func (t *IOLatency) Read(id uint64) ([]Operation, error) {
	var out []Operation
	for kind, on := range t.watched[id].kinds() {
		if !on {
			continue
		}
		name := [3]string{"read", "write", "fsync"}[kind]
		op, err := t.read(ioLatencyIoKey{Cgroup: id, Kind: uint32(kind)})
		if err != nil {
			return nil, fmt.Errorf("read %s latency of cgroup %d: %w", name, id, err)
		}
		op.Name = name
		out = append(out, op)
	}
	return out, nil
}

func (t *IOLatency) read(key ioLatencyIoKey) (Operation, error) {
	var h ioLatencyIoHistogram
	for range readAttempts {
		if err := t.histograms().Lookup(key, &h); err != nil {
			return Operation{}, err
		}
		if total(h.Classic[:]) != total(h.Native[:]) {
			continue // something was counted while it was copied
		}
		op := Operation{
			Count: total(h.Classic[:]), SumNanoseconds: h.Sum,
			Classic: append([]uint64(nil), h.Classic[:]...), Native: map[int]uint64{},
		}
		for i, n := range h.Native {
			if n > 0 {
				op.Native[i+nativeLowest] = n
			}
		}
		return op, nil
	}
	return Operation{}, errors.New("it changes faster than it can be copied")
}

// Lost returns how many requests and fsyncs were not timed, by reason.
func (t *IOLatency) Lost() (map[string]uint64, error) {
	lost := map[string]uint64{}
	for number, name := range []string{1: "requests_full", 2: "fsyncs_full"} {
		if name == "" {
			continue
		}
		n, err := t.counted(uint32(number))
		if err != nil {
			return nil, fmt.Errorf("read losses %s: %w", name, err)
		}
		lost[name] = n
	}
	return lost, nil
}

func (t *IOLatency) counted(number uint32) (uint64, error) {
	var perCPU []uint64
	if err := t.coll.Maps["io_counts"].Lookup(number, &perCPU); err != nil {
		return 0, err
	}
	return total(perCPU), nil
}

// Close detaches everything; what was counted is gone.
func (t *IOLatency) Close() error {
	var errs []error
	for _, l := range t.links {
		errs = append(errs, l.Close())
	}
	if t.coll != nil {
		t.coll.Close()
	}
	return errors.Join(errs...)
}

// verifyFsync watches this thread's own cgroup and syncs a file in memory.
func (t *IOLatency) verifyFsync() error {
	// The thread whose cgroup is asked for must be the one that syncs.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if _, err := t.coll.Programs["on_io_self"].Run(nil); err != nil {
		return fmt.Errorf("ask for own cgroup id: %w", err)
	}
	var id uint64
	if err := t.coll.Maps["io_own"].Lookup(uint32(0), &id); err != nil {
		return fmt.Errorf("ask for own cgroup id: %w", err)
	}
	fd, err := unix.MemfdCreate("mooring", unix.MFD_CLOEXEC)
	if err != nil {
		return fmt.Errorf("make a file in memory: %w", err)
	}
	defer unix.Close(fd)
	if err := t.Set(map[uint64]IOWatch{id: {Fsync: true}}); err != nil {
		return err
	}
	syncErr := unix.Fsync(fd)
	ops, err := t.Read(id)
	if err := errors.Join(syncErr, err, t.Set(nil)); err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	if len(ops) != 1 || ops[0].Count == 0 {
		return errors.New("attached, and an fsync was not seen")
	}
	return nil
}

// verifyBlock writes a file to a disk and wants to have seen some request since.
func (t *IOLatency) verifyBlock(dir string) error {
	before, err := t.counted(0)
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("verify: make a file in %q: %w", dir, err)
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, make([]byte, 4096)); err != nil {
		return fmt.Errorf("verify: write a file in %q: %w", dir, err)
	}
	if err := unix.Fsync(fd); err != nil {
		return fmt.Errorf("verify: sync a file in %q: %w", dir, err)
	}
	after, err := t.counted(0)
	if err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	if after == before {
		return fmt.Errorf("attached, and a file written to %q caused no request that was seen", dir)
	}
	return nil
}
