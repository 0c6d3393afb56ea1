package agent

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mooring-dev/mooring/agent/digest"
	"github.com/mooring-dev/mooring/agent/state"
	"github.com/mooring-dev/mooring/bpf"
)

// TestNoEngineKeepsWhatMayBeAString: of what is in double quotes nobody but
// PostgreSQL itself, where it is never a string, keeps anything.
func TestNoEngineKeepsWhatMayBeAString(t *testing.T) {
	const text = `SELECT * FROM card WHERE no = "6222020200112233445"`
	other := `select * from card where no = "1"`
	for _, f := range state.Engines() {
		if f.Wire != state.WirePostgreSQL && f.Wire != state.WireMySQL {
			continue
		}
		d := dialectOf(f.Engine)
		got := string(d.AppendNormalized(nil, []byte(text), 1000))
		if f.Engine == state.PostgreSQL {
			require.Contains(t, got, `"6222020200112233445"`, "an identifier")
			continue
		}
		require.Equal(t, "select * from card where no = ?", got, f.Engine)
		require.Equal(t, d.Key([]byte(other)), d.Key([]byte(text)), "%s: not a digest for each", f.Engine)
	}
}

func TestTypesOfParametersAreNotOfTheText(t *testing.T) {
	for _, f := range state.Engines() {
		if f.Wire != state.WirePostgreSQL {
			continue
		}
		d := dialectOf(f.Engine)
		require.Equal(t, "select a", string(d.AppendNormalized(nil, []byte("select a\x00\x00\x01\x00\x00\x00\x17"), 100)), f.Engine)
		require.True(t, d.Privileges([]byte("GRANT r TO u\x00\x00\x00")), f.Engine)
		require.True(t, d.Sensitive([]byte("CREATE USER u\x00\x00\x00")), f.Engine)
	}
}

// TestTheNumbersAreTheKernels: package digest knows the kernel's numbers and does
// not import it.
func TestTheNumbersAreTheKernels(t *testing.T) {
	require.Equal(t, []uint32{bpf.DigestNone, bpf.DigestTLS, bpf.DigestUnsampled, bpf.DigestOther, bpf.FirstDigest},
		[]uint32{digest.NumberNone, digest.NumberTLS, digest.NumberUnsampled, digest.NumberOther, digest.FirstNumber})
}
