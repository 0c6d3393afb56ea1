package controller

import (
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/mooring-dev/mooring/agent/agentpb"
	"github.com/mooring-dev/mooring/chaos"
	"github.com/mooring-dev/mooring/controller/v1alpha1"
)

// faultOf puts a resource's fault into the agents' words: a kind and parameters
// as text.
func faultOf(f *v1alpha1.Fault) (kind string, params map[string]string) {
	params = map[string]string{}
	switch {
	case f.NetworkDelay != nil:
		kind, params["delay"] = "net-delay", f.NetworkDelay.Delay.Duration.String()
		if j := f.NetworkDelay.Jitter; j != nil {
			params["jitter"] = string(*j) // of what is no duration, chaos.Validate says so
			if d, err := j.Parse(); err == nil {
				params["jitter"] = d.String()
			}
		}
	case f.NetworkLoss != nil:
		kind, params["percent"] = "net-loss", decimal(&f.NetworkLoss.Percent)
	case f.IOError != nil:
		kind = "io-error"
		if o := f.IOError.Operations; o != "" {
			params["operations"] = strings.ToLower(string(o))
		}
		if p := f.IOError.Percent; p != nil {
			params["percent"] = decimal(p)
		}
	case f.Freeze != nil:
		kind = "freeze"
	}
	return kind, params
}

// decimal writes a quantity without a suffix: Kubernetes itself turns 0.5 into
// 500m. Six digits after the point are two more than any parameter takes.
func decimal(q *resource.Quantity) string {
	v := math.Round(q.AsApproximateFloat64()*1e6) / 1e6
	return strconv.FormatFloat(v, 'f', -1, 64)
}

// faultLine says in one line what is done, "net-delay delay=300ms".
func faultLine(kind string, params map[string]string) string {
	words := []string{kind}
	for _, name := range slices.Sorted(maps.Keys(params)) {
		words = append(words, name+"="+params[name])
	}
	return strings.Join(words, " ")
}

// kindOf returns the kind of fault of that name.
func kindOf(name string) (chaos.Kind, bool) {
	all := chaos.Kinds()
	if i := slices.IndexFunc(all, func(k chaos.Kind) bool { return k.Name == name }); i >= 0 {
		return all[i], true
	}
	return chaos.Kind{}, false
}

// request asks for the fault of one target. It is the same each time, which is
// what renews a lease.
func request(e *v1alpha1.ChaosExperiment, t *v1alpha1.ChaosTargetStatus, notAfter time.Time) *agentpb.ApplyRequest {
	kind, params := faultOf(&e.Spec.Fault)
	spec := &agentpb.FaultSpec{Kind: kind, Params: params, Duration: durationpb.New(e.Spec.Duration.Duration)}
	if !notAfter.IsZero() {
		spec.NotAfter = timestamppb.New(notAfter)
	}
	if e.Spec.OnControlLoss != v1alpha1.ContinueUntilDeadline {
		spec.Lease = durationpb.New(faultLease)
	}
	return &agentpb.ApplyRequest{Uid: t.FaultUID, Instance: t.Instance, PodUid: t.UID, Desired: &agentpb.ApplyRequest_Fault{Fault: spec}}
}
