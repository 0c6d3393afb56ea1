package exporter

import "github.com/mooring-dev/mooring/agent/state"

// mergedOperations adds those that ended in an error to those that did not. What
// it returns is its own, but shares what one outcome alone has.
func mergedOperations(all []state.Operation) []state.Operation {
	var out []state.Operation
	at := make(map[string]int, len(all))
	for _, op := range all {
		i, ok := at[op.Name]
		if !ok {
			at[op.Name] = len(out)
			out = append(out, op)
			continue
		}
		m := &out[i]
		m.FirstByte = addDistributions(m.FirstByte, op.FirstByte)
		m.Blocked += op.Blocked
		m.RequestBytes += op.RequestBytes
		m.ResponseBytes += op.ResponseBytes
		m.Rows += op.Rows
	}
	return out
}

func addDistributions(a, b state.Distribution) state.Distribution {
	sum := state.Distribution{Count: a.Count + b.Count, Sum: a.Sum + b.Sum, Native: make(map[int]uint64, len(a.Native))}
	for _, d := range []state.Distribution{a, b} {
		for i, n := range d.Native {
			sum.Native[i] += n
		}
	}
	return sum
}
