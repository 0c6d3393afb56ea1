package bpf

import (
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/mooring-dev/mooring/agent/change"
)

func validIORule() change.IORule {
	return change.IORule{
		CgroupID: 4711, Major: 253, Minor: 260,
		Write: true, Errno: int(unix.EIO), PPM: 1_000_000,
		Deadline: 90 * time.Second,
	}
}

func TestIORuleEncoding(t *testing.T) {
	t.Run("a rule survives the way to the kernel and back", func(t *testing.T) {
		for _, edit := range []func(*change.IORule){
			func(*change.IORule) {},
			func(r *change.IORule) { r.Read, r.Write = true, false },
			func(r *change.IORule) { r.Read = true },
			func(r *change.IORule) { r.Major, r.Minor = 4095, 1<<20-1 },
			func(r *change.IORule) { r.Errno, r.PPM = 4095, 1 },
			func(r *change.IORule) { r.CgroupID = 1<<63 + 5 },
		} {
			r := validIORule()
			edit(&r)
			require.NoError(t, checkIORule(r))
			require.Equal(t, r, decodeIORule(encodeIORule(r)))
		}
	})
	t.Run("the device is in the kernel's encoding", func(t *testing.T) {
		key, _ := encodeIORule(validIORule())
		require.Equal(t, uint32(253<<20|260), key.Dev)
		require.NotEqual(t, unix.Mkdev(253, 260), uint64(key.Dev), "stat(2) splits the minor number")
	})
	t.Run("the errno is negative", func(t *testing.T) {
		_, val := encodeIORule(validIORule())
		require.Equal(t, int64(-5), val.Err)
	})
	t.Run("sizes agree with the C side", func(t *testing.T) {
		require.Equal(t, uintptr(16), unsafe.Sizeof(iofaultIoKey{}))
		require.Equal(t, uintptr(32), unsafe.Sizeof(iofaultIoRule{}))
	})
}

func TestIORuleRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		edit func(*change.IORule)
		want string
	}{
		"no cgroup":         {func(r *change.IORule) { r.CgroupID = 0 }, "no cgroup id"},
		"no device":         {func(r *change.IORule) { r.Major, r.Minor = 0, 0 }, "no device"},
		"major too large":   {func(r *change.IORule) { r.Major = 4096 }, "device 4096:260"},
		"minor too large":   {func(r *change.IORule) { r.Minor = 1 << 20 }, "device 253:1048576"},
		"no operation":      {func(r *change.IORule) { r.Write = false }, "neither reads nor writes"},
		"no errno":          {func(r *change.IORule) { r.Errno = 0 }, "errno 0"},
		"a negative errno":  {func(r *change.IORule) { r.Errno = -5 }, "errno -5"},
		"errno too large":   {func(r *change.IORule) { r.Errno = 4096 }, "errno 4096"},
		"no share":          {func(r *change.IORule) { r.PPM = 0 }, "share of 0 ppm"},
		"more than a whole": {func(r *change.IORule) { r.PPM = 1_000_001 }, "share of 1000001 ppm"},
	} {
		t.Run(name, func(t *testing.T) {
			r := validIORule()
			tc.edit(&r)
			require.ErrorContains(t, checkIORule(r), tc.want)
			require.ErrorContains(t, (&IOFaults{}).Set("u", r), tc.want)
		})
	}
	t.Run("the root cgroup", func(t *testing.T) {
		r := validIORule()
		r.CgroupID = 1
		require.ErrorContains(t, (&IOFaults{}).Set("u", r), "root cgroup")
	})
}

func TestFaultObjects(t *testing.T) {
	for name, load := range map[string]func() (*ebpf.CollectionSpec, error){
		"iofault": loadIofault, "netfault": loadNetfault,
	} {
		t.Run(name+" has short names and a budget of 100 instructions", func(t *testing.T) {
			spec, err := load()
			require.NoError(t, err)
			require.NotEmpty(t, spec.Programs)
			for prog, p := range spec.Programs {
				require.LessOrEqual(t, len(prog), 15)
				require.True(t, strings.HasPrefix(prog, "on_"), prog)
				require.Less(t, len(p.Instructions), 100, prog)
				require.Equal(t, "Dual BSD/GPL", p.License)
			}
			for m := range spec.Maps {
				require.LessOrEqual(t, len(m), 15)
			}
		})
	}
	t.Run("every file hook names a program of the object", func(t *testing.T) {
		spec, err := loadIofault()
		require.NoError(t, err)
		for _, h := range ioHooks() {
			require.Contains(t, spec.Programs, h.program)
			require.Equal(t, h.function, spec.Programs[h.program].AttachTo)
		}
	})
}

func TestBootTime(t *testing.T) {
	t.Run("never goes back and is not the wall clock", func(t *testing.T) {
		a := BootTime()
		b := BootTime()
		require.Positive(t, a)
		require.GreaterOrEqual(t, b, a)
		require.Less(t, b, time.Duration(time.Now().UnixNano()))
	})
}
