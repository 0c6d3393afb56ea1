package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestProcRootIsFoundBeforeTheFlagsAreRead(t *testing.T) {
	for line, want := range map[string]string{
		"":                                        "/proc",
		"--kubernetes --log-json":                 "/proc",
		"--proc-root=/host/proc --kubernetes":     "/host/proc",
		"--kubernetes --proc-root /host/proc":     "/host/proc",
		"--proc-root /a --proc-root=/b":           "/b",
		"--proc-root":                             "/proc",
		"keeper /var/lib/mooring/keepers/f1":      "/proc",
		"uninstall --proc-root=/host/proc --stay": "/host/proc",
	} {
		require.Equal(t, want, procRoot(strings.Fields(line)), line)
	}
}

func TestAnUnusableListenAddressIsAMistakeInUse(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		says string
	}{
		"no port":           {[]string{"--listen", "9751"}, `--listen "9751" is not host:port or :port`},
		"a relative folder": {[]string{"--listen", ":9751", "--tls-dir", "tls"}, `--tls-dir "tls" is not an absolute path`},
		"nobody to admit":   {[]string{"--listen", ":9751", "--controller-name", ""}, "--controller-name is empty"},
	} {
		t.Run(name, func(t *testing.T) {
			var out, errs bytes.Buffer
			require.Equal(t, 2, run(c.args, &out, &errs))
			require.Contains(t, errs.String(), c.says)
		})
	}
}
