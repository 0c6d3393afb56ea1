package main

import (
	"flag"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func parse(environment map[string]string, arguments ...string) (options, error) {
	return parseOptions(arguments, func(name string) string { return environment[name] }, io.Discard)
}

func TestParseOptions(t *testing.T) {
	t.Run("defaults suit go test -exec", func(t *testing.T) {
		o, err := parse(map[string]string{"HOME": "/home/op"}, "/tmp/b001/x.test", "-test.v", "-kernel=no")
		require.NoError(t, err)
		require.Equal(t, "6.1", o.kernel)
		require.Equal(t, byteSize(3*gib), o.memory)
		require.Equal(t, byteSize(2*gib), o.disk)
		require.Equal(t, 20*time.Minute, o.timeout)
		require.Equal(t, time.Minute, o.hang)
		require.Equal(t, "tcg", o.accel)
		require.Empty(t, o.image)
		require.Empty(t, o.tap)
		require.Equal(t, "/home/op/.cache/mooring", o.cache)
		require.Equal(t, []string{"/tmp/b001/x.test", "-test.v", "-kernel=no"}, o.arguments)
	})
	t.Run("the environment sets defaults and a flag wins over it", func(t *testing.T) {
		environment := map[string]string{
			"VMTEST_KERNEL": "5.10", "VMTEST_MEMORY": "1G", "VMTEST_HANG": "5s", "VMTEST_V": "true",
			"VMTEST_ACCEL": "kvm", "MOORING_CACHE": "/cache",
		}
		o, err := parse(environment, "-kernel", "6.12", "--", "true")
		require.NoError(t, err)
		require.Equal(t, "6.12", o.kernel)
		require.Equal(t, byteSize(gib), o.memory)
		require.Equal(t, 5*time.Second, o.hang)
		require.Equal(t, "kvm", o.accel)
		require.Equal(t, "/cache", o.cache)
		require.True(t, o.verbose)
		require.Equal(t, []string{"true"}, o.arguments)
	})
	t.Run("help is not an error of the caller", func(t *testing.T) {
		_, err := parse(nil, "-h")
		require.ErrorIs(t, err, flag.ErrHelp)
	})
}

func TestParseOptionsRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		environment map[string]string
		arguments   []string
		message     string
	}{
		"no program":             {nil, nil, "no program to run"},
		"a size without unit":    {nil, []string{"-memory", "3", "true"}, "no suffix M or G"},
		"a size of nothing":      {nil, []string{"-disk", "0G", "true"}, "not a number of M or G"},
		"a size beyond counting": {nil, []string{"-disk", "9999999999G", "true"}, "not a number of M or G"},
		"too little memory":      {nil, []string{"-memory", "100M", "true"}, "-memory 100M: the guest needs 512M"},
		"too small a disk":       {nil, []string{"-disk", "1M", "true"}, "-disk 1M: must be 0, or 16M"},
		"a tap of no name":       {nil, []string{"-tap", "a,b", "true"}, `-tap "a,b" is not the name of a network interface`},
		"a tap of a long name":   {nil, []string{"-tap", "sixteenlettersxx", "true"}, "is not the name of a network interface"},
		"no time":                {nil, []string{"-hang", "0s", "true"}, "must be above zero"},
		"a bad environment":      {map[string]string{"VMTEST_HANG": "soon"}, []string{"true"}, `VMTEST_HANG="soon"`},
		"an unknown accelerator": {map[string]string{"VMTEST_ACCEL": "hvf"}, []string{"true"}, "must be tcg or kvm"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := parse(c.environment, c.arguments...)
			require.ErrorContains(t, err, c.message)
		})
	}
}
