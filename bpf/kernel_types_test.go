package bpf

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestKernelTypesAreSharedForAWhile(t *testing.T) {
	// Tests before this one may have left some, with a timer of the real time.
	if kernelTypes.forget != nil {
		kernelTypes.forget.Stop()
	}
	kernelTypes.cache, kernelTypes.forget = nil, nil
	synctest.Test(t, func(t *testing.T) {
		defer func() { kernelTypes.cache, kernelTypes.forget = nil, nil }()
		first := sharedKernelTypes()
		time.Sleep(kernelTypesKept - time.Second)
		require.Same(t, first, sharedKernelTypes())
		time.Sleep(kernelTypesKept - time.Second)
		require.Same(t, first, sharedKernelTypes(), "each use keeps them")
		time.Sleep(kernelTypesKept + time.Second)
		kernelTypes.mu.Lock()
		kept := kernelTypes.cache
		kernelTypes.mu.Unlock()
		require.Nil(t, kept, "they take memory for nothing")
		require.NotSame(t, first, sharedKernelTypes())
	})
}
