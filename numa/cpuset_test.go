package numa

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestParseCPUSet(t *testing.T) {
	for list, want := range map[string]CPUSet{
		"":          {},
		"\n":        {},
		"0":         NewCPUSet(0),
		"0-3,8\n":   NewCPUSet(0, 1, 2, 3, 8),
		"8,0-3":     NewCPUSet(0, 1, 2, 3, 8),
		"0-2,1-4":   NewCPUSet(0, 1, 2, 3, 4),
		"65535":     NewCPUSet(65535),
		" 1-1,2-2 ": NewCPUSet(1, 2),
	} {
		t.Run("the list "+list, func(t *testing.T) {
			got, err := ParseCPUSet(list)
			require.NoError(t, err)
			require.Equal(t, want, got)
		})
	}
	for _, list := range []string{"a", "0-", "-1", "3-1", "0,,1", "1,", "65536", "0-4294967295", "0-3:2/4", "+1", "0 1"} {
		t.Run("the list "+list+" is refused", func(t *testing.T) {
			_, err := ParseCPUSet(list)
			require.ErrorContains(t, err, "parse CPU list")
		})
	}
}

func TestCPUSetString(t *testing.T) {
	require.Empty(t, CPUSet{}.String())
	require.Equal(t, "0-3,8,10-11", NewCPUSet(11, 10, 8, 3, 2, 1, 0).String())
}

func TestNewCPUSetLeavesOutNegativeNumbers(t *testing.T) {
	require.Equal(t, NewCPUSet(1), NewCPUSet(-1, 1, 1))
	require.Equal(t, CPUSet{}, NewCPUSet(-1))
}

func TestCPUSetOperations(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		numbers := rapid.SliceOf(rapid.IntRange(0, 70))
		a, b := NewCPUSet(numbers.Draw(t, "a")...), NewCPUSet(numbers.Draw(t, "b")...)
		union, both, left := a.Union(b), a.Intersect(b), a.Minus(b)
		for cpu := range 72 {
			require.Equal(t, a.Contains(cpu) || b.Contains(cpu), union.Contains(cpu))
			require.Equal(t, a.Contains(cpu) && b.Contains(cpu), both.Contains(cpu))
			require.Equal(t, a.Contains(cpu) && !b.Contains(cpu), left.Contains(cpu))
		}
		require.Equal(t, a.Len(), both.Len()+left.Len())
		require.True(t, both.Union(left).Equal(a))
		again, err := ParseCPUSet(union.String())
		require.NoError(t, err)
		require.Equal(t, union, again)
		require.Len(t, union.List(), union.Len())
	})
}

func FuzzParseCPUSet(f *testing.F) {
	for _, s := range []string{"", "0", "0-3,8", "3-1", "65535-65536", "1,,2", "0-65535,0-65535,0-65535"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		set, err := ParseCPUSet(s)
		if err != nil {
			return
		}
		again, err := ParseCPUSet(set.String())
		require.NoError(t, err)
		require.True(t, set.Equal(again))
		require.LessOrEqual(t, set.Len(), maxCPU+1)
	})
}
