package bpf

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/stretchr/testify/require"
)

// legacyInstructions is BPF_MAXINSNS, the limit of a program until Linux 5.2.
const legacyInstructions = 4096

func TestStatementObjects(t *testing.T) {
	core, err := loadQueryCore()
	require.NoError(t, err)
	legacy, err := loadQueryLegacy()
	require.NoError(t, err)
	socket, err := loadQuerySocket()
	require.NoError(t, err)

	t.Run("shared structures are as large in Go as in the kernel", func(t *testing.T) {
		sizes := map[string][2]uintptr{
			"settings":    {4, unsafe.Sizeof(queryCoreQuerySettings{})},
			"cgroups":     {8, unsafe.Sizeof(queryCoreServer{})},
			"pids":        {4, unsafe.Sizeof(queryCoreServer{})},
			"ports":       {unsafe.Sizeof(queryCorePortKey{}), 1},
			"connections": {8, unsafe.Sizeof(queryCoreConnection{})},
			"operations":  {unsafe.Sizeof(queryCoreOperationKey{}), unsafe.Sizeof(queryCoreOperationValue{})},
			"texts":       {unsafe.Sizeof(queryCoreTextKey{}), 4},
			"digests":     {unsafe.Sizeof(queryCoreDigestKey{}), unsafe.Sizeof(queryCoreDigestValue{})},
			"errors":      {unsafe.Sizeof(queryCoreErrorKey{}), 8},
			"rules":       {4, unsafe.Sizeof(queryCoreServerRules{})},
			"traffic":     {4, unsafe.Sizeof(queryCoreServerTraffic{})},
			"losses":      {4, 8},
		}
		for name, size := range sizes {
			for _, spec := range []*ebpf.CollectionSpec{core, legacy, socket} {
				require.Contains(t, spec.Maps, name)
				require.EqualValues(t, size[0], spec.Maps[name].KeySize, name)
				require.EqualValues(t, size[1], spec.Maps[name].ValueSize, name)
			}
		}
	})
	t.Run("names fit into the kernel's", func(t *testing.T) {
		for _, spec := range []*ebpf.CollectionSpec{core, legacy, socket} {
			for name := range spec.Programs {
				require.LessOrEqual(t, len(name), 15, name)
				require.True(t, strings.HasPrefix(name, "on_"), name)
			}
			for name := range spec.Maps {
				require.LessOrEqual(t, len(name), 15, name)
			}
		}
	})
	t.Run("the legacy programs stay within old kernels", func(t *testing.T) {
		for name, p := range legacy.Programs {
			require.Less(t, len(p.Instructions), legacyInstructions, name)
			require.Contains(t, []ebpf.ProgramType{ebpf.TracePoint, ebpf.RawTracepoint}, p.Type, name)
		}
		known := []ebpf.MapType{ebpf.Hash, ebpf.LRUHash, ebpf.Array, ebpf.PerCPUArray, ebpf.ProgramArray, ebpf.PerfEventArray}
		for name, m := range legacy.Maps {
			require.False(t, strings.HasPrefix(name, "."), "map of globals %s", name)
			require.Contains(t, known, m.Type, name)
		}
		require.Empty(t, legacy.Variables)
	})
	t.Run("every hook has a program", func(t *testing.T) {
		programs := append(slices.Collect(maps.Values(schedHooks())), slices.Collect(maps.Values(stepPrograms()))...)
		require.ElementsMatch(t, slices.Collect(maps.Keys(legacy.Programs)), append(programs, syscallHook))
	})
	t.Run("every number has a name", func(t *testing.T) {
		require.EqualValues(t, len(lossNames()), core.Maps["losses"].MaxEntries)
		require.LessOrEqual(t, len(operationNames()), 20)
		require.Len(t, queryCoreHistogram{}.Classic, len(ClassicBounds())+1)
	})
}

func TestOpenStatementsRefusesAnUnknownMode(t *testing.T) {
	_, err := OpenStatements("kprobe")
	require.ErrorContains(t, err, `mode "kprobe"`)
}

func TestClassicBoundsRise(t *testing.T) {
	bounds := ClassicBounds()
	require.Equal(t, 50*time.Microsecond, bounds[0])
	for i := range bounds[1:] {
		require.Less(t, bounds[i], bounds[i+1])
	}
}

func TestOperation(t *testing.T) {
	v := queryCoreOperationValue{Blocked: 5, In: 6, Out: 7, Rows: 8, Statements: 9}
	h := &v.Duration
	h.Sum = 7_000_000
	h.Classic[0], h.Classic[16] = 2, 1
	h.Native[0], h.Native[160], h.Native[217] = 1, 1, 1
	v.First.Sum, v.First.Coarse[0], v.First.Coarse[40], v.First.Coarse[55] = 11, 1, 2, 3
	op := operation(&v)
	require.Equal(t, Distribution{Count: 6, SumNanoseconds: 11, Native: map[int]uint64{-40: 1, 0: 2, 15: 3}}, op.FirstByte)
	require.Equal(t, []uint64{5, 6, 7, 8, 9}, []uint64{op.BlockedNanoseconds, op.RequestBytes, op.ResponseBytes, op.Rows, op.Statements})
	require.EqualValues(t, 3, op.Count)
	require.EqualValues(t, 7_000_000, op.SumNanoseconds)
	require.Equal(t, map[int]uint64{-160: 1, 0: 1, 57: 1}, op.Native)
	h.Classic[0] = 9
	require.EqualValues(t, 2, op.Classic[0], "the result shares memory with the copy")
}

func TestLevel(t *testing.T) {
	for _, tt := range []struct {
		name            string
		classic, native uint64
	}{
		{"agreeing counts", 5, 5},
		{"a classic count too many", 7, 5},
		{"native counts too many", 5, 8},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var h queryCoreHistogram
			h.Classic[3], h.Classic[4] = tt.classic-1, 1
			h.Native[9], h.Native[8] = tt.native-1, 1
			level(&h)
			require.EqualValues(t, min(tt.classic, tt.native), total(h.Classic[:]))
			require.EqualValues(t, min(tt.classic, tt.native), total(h.Native[:]))
			require.EqualValues(t, 1, h.Classic[4])
		})
	}
}

func TestFieldOffset(t *testing.T) {
	const format = `name: sched_process_fork
ID: 366
format:
	field:int common_pid;	offset:4;	size:4;	signed:1;

	field:__data_loc char[] parent_comm;	offset:8;	size:4;	signed:0;
	field:pid_t parent_pid;	offset:12;	size:4;	signed:1;
	field:pid_t child_pid;	offset:20;	size:4;	signed:1;

print fmt: "comm=%s pid=%d child_comm=%s child_pid=%d", __get_str(parent_comm), REC->parent_pid
`
	for _, tt := range []struct {
		name, text, field string
		want              uint32
		err               string
	}{
		{"the field of a recent kernel", format, "child_pid", 20, ""},
		{"the field of an older one", "\tfield:pid_t child_pid;\toffset:44;\tsize:4;\tsigned:1;\n", "child_pid", 44, ""},
		{"a field that is not there", format, "child", 0, "no field child"},
		{"an offset that is no number", "\tfield:pid_t child_pid;\toffset:x;\n", "child_pid", 0, "offset of field"},
		{"an empty file", "", "child_pid", 0, "no field"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := fieldOffset(strings.NewReader(tt.text), tt.field)
			if tt.err != "" {
				require.ErrorContains(t, err, tt.err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, tt.want, got)
		})
	}
}

func FuzzFieldOffset(f *testing.F) {
	f.Add("\tfield:pid_t child_pid;\toffset:44;\tsize:4;\tsigned:1;\n")
	f.Add("field: child_pid;offset:")
	f.Fuzz(func(t *testing.T, text string) {
		if offset, err := fieldOffset(strings.NewReader(text), "child_pid"); err == nil {
			require.Less(t, offset, uint32(1<<16))
		}
	})
}
