//go:build kernel

package bpf

import (
	"math"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
	"github.com/stretchr/testify/require"
)

//go:generate go tool bpf2go -target bpfel -tags kernel -output-stem query_probe -no-global-types queryProbe query_probe_test.bpf.c -- -O2 -g -Wall -Wextra -Werror -Wpadded -Iheaders -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu

// loadProbe loads the test programs.
func loadProbe(t *testing.T) *ebpf.Collection {
	t.Helper()
	require.NoError(t, rlimit.RemoveMemlock())
	spec, err := loadQueryProbe()
	require.NoError(t, err)
	coll, err := ebpf.NewCollection(spec)
	require.NoError(t, err)
	t.Cleanup(coll.Close)
	return coll
}

func call(t *testing.T, p *ebpf.Program, args ...uint64) uint32 {
	t.Helper()
	result, err := p.Run(&ebpf.RunOptions{Context: args})
	require.NoError(t, err)
	return result
}

func TestStatementBuckets(t *testing.T) {
	program := loadProbe(t).Programs["on_duration"]
	buckets := func(ns uint64) (native int, classic int) {
		r := call(t, program, ns)
		return int(r>>8) + nativeLowest, int(r & 0xff)
	}
	wantNative := func(ns uint64) int {
		i := int(math.Ceil(8 * math.Log2(float64(max(ns, 1))/1e9)))
		return min(max(i, nativeLowest), 57)
	}
	wantClassic := func(ns uint64) int {
		for i, bound := range ClassicBounds() {
			if ns <= uint64(bound) {
				return i
			}
		}
		return len(ClassicBounds())
	}
	check := func(t *testing.T, ns uint64) {
		t.Helper()
		native, classic := buckets(ns)
		require.Equal(t, wantNative(ns), native, "%d ns", ns)
		require.Equal(t, wantClassic(ns), classic, "%d ns", ns)
	}
	t.Run("each native bound belongs to the bucket below it", func(t *testing.T) {
		for i := nativeLowest; i < 57; i++ {
			bound := uint64(math.Floor(math.Exp2(float64(i)/8) * 1e9))
			below, _ := buckets(bound)
			above, _ := buckets(bound + 1)
			require.Equal(t, i, below, "%d ns", bound)
			require.Equal(t, i+1, above, "%d ns", bound+1)
		}
	})
	t.Run("each classic bound belongs to the bucket below it", func(t *testing.T) {
		for _, bound := range ClassicBounds() {
			check(t, uint64(bound))
			check(t, uint64(bound)+1)
		}
	})
	t.Run("the ends are clamped", func(t *testing.T) {
		for _, ns := range []uint64{0, 1, 2, 953, 954, uint64(128 * time.Second), uint64(129 * time.Second), 1 << 62} {
			check(t, ns)
		}
	})
	t.Run("any duration", func(t *testing.T) {
		for range 2000 {
			check(t, uint64(math.Exp2(rand.Float64()*40)))
		}
	})
}

func TestStatementText(t *testing.T) {
	program := loadProbe(t).Programs["on_text"]
	names := operationNames()
	for text, want := range map[string]string{
		"SELECT 1": "select", "select\t1": "select", "SeLeCt": "select", "WITH a AS (SELECT 1) SELECT": "select",
		"VALUES (1)": "select", "TABLE t": "select", "declare c cursor for select 1": "select",
		"(SELECT 1) UNION (SELECT 2)": "select", ";;select 1": "select", "  \r\n\t select": "select",
		strings.Repeat(" ", 60) + "select": "select",
		"/* update */ select 1":            "select", "/**/insert": "insert", "/* * / */delete from t": "delete",
		"/*" + strings.Repeat("x", 100) + "*/ update t": "update", "/*1234567*/update": "update", "/*12345*/update": "update",
		"/* 123 */\n  update t": "update", "-- select\ninsert": "insert", "--\nupdate": "update",
		"insert into t": "insert", "replace into t": "replace", "MERGE INTO t": "replace", "call f()": "call",
		"EXECUTE x": "call", "DO 1": "call", "do\n$$": "call", "commit": "txn", "COMMENT ON TABLE t": "ddl",
		"begin": "txn", "START TRANSACTION": "txn", "start replica": "admin", "ROLLBACK": "txn", "end": "txn",
		"END;": "txn", "savepoint a": "txn", "xa start 'a'": "txn", "set x=1": "set", "SETVAL": "other", "use db": "set",
		"reset all": "set", "show tables": "show", "explain select 1": "show", "describe t": "show",
		"copy t from stdin": "copy", "load data infile": "copy", "prepare x as select 1": "prepare",
		"deallocate x": "prepare", "fetch 1 from c": "fetch", "close c": "fetch", "create table t()": "ddl",
		"SET PASSWORD FOR a = 'x'": "ddl", "set\tpassword = 'x'": "ddl", "/* a */ Set Default Role r TO a": "ddl",
		"set default_storage_engine = x": "set", "set passive = 1": "set", "set pass": "set", "set default rol": "set",
		"truncate t": "ddl", "grant all": "ddl", "vacuum": "admin", "flush tables": "admin", "kill 1": "admin",
		"": "other", " ": "other", "1": "other", "se": "other", "en": "other", "listen x": "other", "\x00\x01": "other",
		"/* never ends": "other", "/*" + strings.Repeat("x", 300) + "*/ select": "other",
	} {
		// The byte behind the text must not matter.
		memory := append([]byte(text), "select delete"...)
		got := call(t, program, uint64(uintptr(unsafe.Pointer(&memory[0]))), uint64(len(text)))
		runtime.KeepAlive(memory)
		require.Less(t, int(got), len(names))
		require.Equal(t, want, names[got], "%q", text)
	}
}
