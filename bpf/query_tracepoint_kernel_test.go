//go:build kernel

package bpf

import (
	"testing"

	"github.com/cilium/ebpf/btf"
	"github.com/stretchr/testify/require"
)

func TestTracepointMode(t *testing.T) {
	t.Run("the tracepoints of sockets are taken where there are any", func(t *testing.T) {
		there := false
		if kernel, err := btf.LoadKernelSpec(); err == nil {
			_, err = kernel.AnyTypeByName("btf_trace_sock_recv_length")
			there = err == nil
		}
		s := openTimer(t, ModeTracepoint)
		require.Equal(t, there, !s.syscalls)
	})
	t.Run("system calls are enough on every kernel", func(t *testing.T) {
		s := &Statements{mode: ModeTracepoint, proc: procfs{root: "/proc"}, servers: map[string]*served{}}
		t.Cleanup(func() { require.NoError(t, s.Close()) })
		require.NoError(t, s.openSyscalls())
		require.NoError(t, s.Verify(t.Context()))
	})
}
