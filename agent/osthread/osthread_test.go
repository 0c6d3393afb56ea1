package osthread

import (
	"os"
	"runtime"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestDiscardNeverUsesTheMainThread(t *testing.T) {
	// Many at once, so that the scheduler hands out every thread it has.
	var wg sync.WaitGroup
	for range 200 {
		wg.Go(func() {
			Discard(func() {
				require.NotEqual(t, os.Getpid(), unix.Gettid())
				runtime.Gosched()
			})
		})
	}
	wg.Wait()
}

func TestAThreadIsNotUsedAgain(t *testing.T) {
	// A thread's name stays with it, as its namespaces would.
	Discard(func() { require.NoError(t, unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0)) })
	for range 50 {
		Discard(func() {
			kept, err := unix.PrctlRetInt(unix.PR_GET_KEEPCAPS, 0, 0, 0, 0)
			require.NoError(t, err)
			require.Zero(t, kept)
		})
	}
}
