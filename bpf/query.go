package bpf

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
)

//go:generate go tool bpf2go -target bpfel -output-stem query_core -type connection -type server -type port_key -type operation_key -type operation_value -type histogram -type distribution -type query_settings -type prepared_value -type text_key -type digest_key -type digest_value -type error_key -type server_rules -type server_traffic -type event_head -type text_event -type record_event -type session_event queryCore query_core.bpf.c -- -O2 -g -Wall -Wextra -Werror -Wpadded -Iheaders -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu
//go:generate go tool bpf2go -target amd64,arm64 -output-stem query_legacy -no-global-types queryLegacy query_legacy.bpf.c -- -O2 -g -Wall -Wextra -Werror -Wpadded -Iheaders -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu
//go:generate go tool bpf2go -target amd64,arm64 -output-stem query_socket -no-global-types querySocket query_socket.bpf.c -- -O2 -g -Wall -Wextra -Werror -Wpadded -Iheaders -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu

// Mode is the way a statement timer gets between a server and its clients.
type Mode string

const (
	// ModeFentry uses trampolines on the kernel's socket functions. It needs
	// Linux 5.10 with BTF, and 6.0 on arm64; nothing but sockets pays for it.
	ModeFentry Mode = "fentry"
	// ModeTracepoint works where trampolines are refused. It uses the
	// tracepoints of sockets, which are in Linux 6.3 and later with BTF, else
	// that of the end of system calls, which costs every one of the node a little.
	ModeTracepoint Mode = "tracepoint"
)

// Protocol is what a server and its clients speak. It is never guessed.
type Protocol uint8

// The protocols. Relatives of an engine speak the same: MariaDB, openGauss, Valkey.
const (
	ProtocolPostgres Protocol = iota + 1
	ProtocolMySQL
	ProtocolRedis
	ProtocolMongo
)

// reads tells whether servers of a protocol may use read and write on sockets,
// which the tracepoint of system calls otherwise leaves to files.
func (p Protocol) reads() bool { return p != ProtocolPostgres }

// Watched is one server whose statements are timed.
type Watched struct {
	// ID names the server; it is unique in a list.
	ID       string
	Protocol Protocol
	// CgroupID is the cgroup v2 id (its directory's inode number) of the
	// server's processes, not of their children's cgroups. 0 means to follow
	// PIDs instead: on cgroup v1, or in a cgroup shared with others.
	CgroupID uint64
	// PIDs are all processes of the server now, as numbered in the agent's
	// /proc. Children forked later are followed by the kernel.
	PIDs []int
	// Ports are the TCP ports the server listens on. A socket with another
	// local port is one on which the server is itself a client, or no matter
	// of statements.
	Ports []uint16
	// Slow is the duration from which a statement is recorded, and with it every
	// one that failed; 0 records neither.
	Slow time.Duration
	// Audit is what is recorded besides.
	Audit AuditClass
	// NoText keeps the texts of statements in the kernel: all that have one
	// count under DigestUnsampled.
	NoText bool
}

// Statements times the statements of database servers in the kernel, on the
// servers' side: from the return of the receive that brought the first byte of
// a request to the return of the last send of its reply.
//
// The kernel tells the operation of a statement from its first word, and keeps of
// its text a hash. What digest a text belongs to is for the caller to say: it is
// given each text once (ReadEvents) and numbers it (MapText), after which the
// kernel counts statements of that text by itself. No text is kept in the kernel,
// and nothing is read of an authentication but the names of user and database.
//
// Read is safe for concurrent use with itself and with Set; the other methods
// are not.
//
// All state lives as long as the process: nothing is pinned, so the kernel
// removes the programs and counters with the last of them.
type Statements struct {
	mode  Mode
	coll  *ebpf.Collection
	links []link.Link
	proc  procfs
	// syscalls says that ModeTracepoint had to do with system calls.
	syscalls bool

	mu      sync.RWMutex // guards the following against readers
	servers map[string]*served
	ids     map[uint32]string // by slot
	slots   uint32            // the last one given
	// events counts what ReadEvents was given, by kind.
	events [eventSession + 1]atomic.Uint64
	// logouts are connections that were found ended, for ReadEvents.
	logouts chan Session
}

// served is a server that has a slot in the kernel's maps.
type served struct {
	Watched
	slot uint32
	// digests are the numbers MapText made a counter for. Guarded by the mutex of
	// Statements.
	digests map[uint32]bool
}

func (s *served) value() queryCoreServer {
	return queryCoreServer{Slot: s.slot, Protocol: uint8(s.Protocol)}
}

// OpenStatements loads the programs and attaches them. Until Set names a server
// they do next to nothing. If the kernel refuses a program the error wraps the
// verifier's (*ebpf.VerifierError); nothing stays behind on an error.
//
// That it loads does not prove that it works: see Verify. It needs CAP_BPF and
// CAP_PERFMON, or CAP_SYS_ADMIN before Linux 5.8, and takes about a second on a
// slow machine. ModeTracepoint mounts tracefs where it needs it and the system has
// not.
func OpenStatements(m Mode) (*Statements, error) {
	s := &Statements{
		mode: m, proc: procfs{root: "/proc"}, servers: map[string]*served{}, ids: map[uint32]string{},
		logouts: make(chan Session, maxLogouts),
	}
	var open func() error
	switch m {
	case ModeFentry:
		open = s.openFentry
	case ModeTracepoint:
		open = s.openTracepoint
	default:
		return nil, fmt.Errorf("open statement timer: mode %q is not %q or %q", m, ModeFentry, ModeTracepoint)
	}
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, fmt.Errorf("raise memlock limit: %w", err)
	}
	if err := open(); err != nil {
		return nil, errors.Join(fmt.Errorf("open statement timer (%s): %w", m, err), s.Close())
	}
	return s, nil
}

// Mode returns how the timer is attached.
func (s *Statements) Mode() Mode { return s.mode }

// Close detaches the programs and forgets all counters.
func (s *Statements) Close() error {
	var errs []error
	for _, l := range s.links {
		errs = append(errs, l.Close())
	}
	s.links = nil
	if s.coll != nil {
		s.coll.Close()
		s.coll = nil
	}
	return errors.Join(errs...)
}

func (s *Statements) openFentry() error {
	spec, err := loadQueryCore()
	if err != nil {
		return fmt.Errorf("read core program: %w", err)
	}
	args, err := recvArgs()
	if err != nil {
		return err
	}
	if err := spec.Variables["recv_args"].Set(args); err != nil {
		return fmt.Errorf("set recv_args: %w", err)
	}
	if s.coll, err = newCollection(spec); err != nil {
		return fmt.Errorf("load core program: %w", err)
	}
	return s.attachTracing()
}

// attachTracing attaches all programs to what their sections name.
func (s *Statements) attachTracing() error {
	for name, prog := range s.coll.Programs {
		l, err := link.AttachTracing(link.TracingOptions{Program: prog})
		if err != nil {
			return fmt.Errorf("attach %s: %w", name, err)
		}
		s.links = append(s.links, l)
	}
	return nil
}

// recvArgs tells how many arguments the running kernel's tcp_recvmsg has
// (include/net/tcp.h): sk, msg, len, flags, then addr_len up to about 6.17, and
// nonblock before flags up to 5.18.
func recvArgs() (uint8, error) {
	kernel, err := sharedKernelTypes().Kernel()
	if err != nil {
		return 0, fmt.Errorf("read the kernel's BTF: %w", err)
	}
	var fn *btf.Func
	if err := kernel.TypeByName("tcp_recvmsg", &fn); err != nil {
		return 0, fmt.Errorf("find tcp_recvmsg in the kernel's BTF: %w", err)
	}
	proto, ok := fn.Type.(*btf.FuncProto)
	if !ok {
		return 0, errors.New("tcp_recvmsg has no prototype in the kernel's BTF")
	}
	n := len(proto.Params)
	if n < 4 || n > 6 {
		return 0, fmt.Errorf("tcp_recvmsg has %d arguments, 4 to 6 are known", n)
	}
	return uint8(n), nil
}
