package fleet

import (
	"encoding/binary"
	"hash"
	"hash/fnv"

	"github.com/mooring-dev/mooring/agent/agentpb"
)

// fingerprint sums up what of a status a controller acts on, so that figures
// which move all the time do not wake it.
func fingerprint(r *agentpb.StatusReply) uint64 {
	h := sum{fnv.New64a()}
	h.text(r.GetPolicyDigest(), r.GetLimitsWriter(), r.GetVersion())
	for _, in := range r.GetInstances() {
		h.text(in.GetId(), in.GetPodUid(), in.GetContainer(), in.GetShared(), in.GetError(), in.GetPolicy(), in.GetNuma(), in.GetPlacementError(), in.GetRole(), in.GetCluster())
		node := int64(-1)
		if in.NumaNode != nil {
			node = int64(in.GetNumaNode())
		}
		h.number(node, in.GetResources().GetCpuMillicores(), in.GetResources().GetMemoryLimitBytes())
	}
	for _, f := range r.GetFaults() {
		h.text(f.GetUid(), f.GetPhase(), f.GetReason(), f.GetError())
		h.text(f.GetResidue()...)
		verified := int64(0)
		if f.GetVerified() {
			verified = 1
		}
		h.number(verified, int64(f.GetHits()), f.GetDeadline().GetSeconds(), f.GetEnded().GetSeconds())
	}
	for _, c := range r.GetCapabilities() {
		h.text(c.GetName(), c.GetDetail())
		if c.GetOk() {
			h.number(1)
		}
	}
	h.text(r.GetUnresolved()...)
	return h.Sum64()
}

// sum keeps fields apart from their neighbours.
type sum struct{ hash.Hash64 }

func (s sum) text(all ...string) {
	for _, t := range all {
		s.number(int64(len(t)))
		s.Write([]byte(t))
	}
}

func (s sum) number(all ...int64) {
	for _, n := range all {
		var b [8]byte
		binary.LittleEndian.PutUint64(b[:], uint64(n))
		s.Write(b[:])
	}
}
