package change

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestString(t *testing.T) {
	file := &FileChange{Path: "/sys/fs/cgroup/x/cpu.max", Old: "100000 100000", New: "200000 100000"}
	for _, tt := range []struct {
		c    Change
		want string
	}{
		{Change{Class: File, File: file}, `write /sys/fs/cgroup/x/cpu.max: "100000 100000" -> "200000 100000"`},
		{Change{Class: Freeze, File: &FileChange{Path: "/x/cgroup.freeze", Old: "0", New: "1"}}, `freeze /x/cgroup.freeze: "0" -> "1"`},
		{
			Change{Class: Net, Net: &NetRule{Link: 12, Name: "veth1", Delay: 100 * time.Millisecond, Jitter: 10 * time.Millisecond, LossPPM: 15_000, Deadline: time.Hour}},
			`disturb packets through link 12 ("veth1"): delay 100ms varied by 10ms, lose 1.5%, until 1h0m0s after boot`,
		},
		{Change{Class: Net, Net: &NetRule{Link: 3}}, "disturb packets through link 3: no effect, until 0s after boot"},
		{
			Change{Class: IO, IO: &IORule{CgroupID: 42, Major: 8, Minor: 1, Read: true, Write: true, Errno: 5, PPM: 1_000_000, Deadline: time.Minute}},
			"fail 100% of reads and writes by cgroup 42 on device 8:1 with EIO, until 1m0s after boot",
		},
		{Change{Class: IO, IO: &IORule{Write: true, Errno: 9999, PPM: 1}}, "fail 0.0001% of writes by cgroup 0 on device 0:0 with errno 9999, until 0s after boot"},
		{Change{Class: IO, IO: &IORule{Errno: 28}}, "fail 0% of no operations by cgroup 0 on device 0:0 with ENOSPC, until 0s after boot"},
		{Change{}, `invalid change: unknown class ""`},
	} {
		t.Run(tt.want, func(t *testing.T) { require.Equal(t, tt.want, tt.c.String()) })
	}
}

func FuzzDecode(f *testing.F) {
	b, err := writes("x", "/a").Encode()
	require.NoError(f, err)
	f.Add(b)
	f.Add([]byte(`{"id":"x","bootId":"b","changes":[{"class":"net","net":{"link":1}}]}`))
	f.Add([]byte(`{"id":"x","bootId":"b","changes":[{"class":"file"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		op, err := Decode(data)
		if err != nil {
			return
		}
		for _, c := range op.Changes {
			require.NotContains(t, c.String(), "\n")
			require.NotEmpty(t, c.target())
		}
		again, _, err := op.clone()
		require.NoError(t, err)
		require.Equal(t, op.Changes, again.Changes)
	})
}
