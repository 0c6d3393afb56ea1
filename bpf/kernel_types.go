package bpf

import (
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
)

// kernelTypesKept is how long the kernel's decoded types are kept after their last
// use: past the start of an agent, which loads everything once, they are of no use
// and take some MiB.
const kernelTypesKept = 30 * time.Second

// kernelTypes are the kernel's types as /sys/kernel/btf has them. To decode them
// takes longer than to load any program here.
var kernelTypes struct {
	mu     sync.Mutex
	cache  *btf.Cache
	forget *time.Timer
}

// sharedKernelTypes returns the kernel's types, decoded at their first use and not
// again for a while. It can be called from any goroutine.
func sharedKernelTypes() *btf.Cache {
	t := &kernelTypes
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.cache != nil && t.forget.Stop() {
		t.forget.Reset(kernelTypesKept)
		return t.cache
	}
	cache := btf.NewCache()
	t.cache = cache
	t.forget = time.AfterFunc(kernelTypesKept, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.cache == cache {
			t.cache = nil
		}
	})
	return cache
}

// newCollection loads a collection with the kernel's types shared.
func newCollection(spec *ebpf.CollectionSpec) (*ebpf.Collection, error) {
	return ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{Cache: sharedKernelTypes()})
}
