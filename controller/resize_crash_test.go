package controller

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/mooring-dev/mooring/controller/v1alpha1"
)

func TestACrashDuringAResizeIsCarriedOn(t *testing.T) {
	for _, stuck := range []bool{false, true} {
		for _, after := range []bool{false, true} {
			// One run more than there are steps: the last one has no crash.
			for n, steps := 1, 1; n <= steps; n++ {
				t.Run(fmt.Sprintf("taken back: %t, step %d, after it took effect: %t", stuck, n, after), func(t *testing.T) {
					w := newWorld(t)
					k := newKubelets(w)
					if stuck {
						k.stuck["pg-2"] = corev1.PodCondition{Type: corev1.PodResizePending, Status: corev1.ConditionTrue, Reason: "Infeasible"}
					}
					w.newResize()
					c := &crashAt{n: n, after: after}
					patch := w.hooks.SubResourcePatch
					w.hooks.SubResourcePatch = func(ctx context.Context, cl client.Client, sub string, o client.Object, p client.Patch, opts ...client.SubResourcePatchOption) error {
						hit := c.hit()
						if hit && !after {
							return errCrash
						}
						if err := patch(ctx, cl, sub, o, p, opts...); err != nil {
							return err
						}
						if hit {
							return errCrash
						}
						return nil
					}
					for range 100 {
						if _, err := w.r.reconcile(t.Context(), key{kindResize, "db", "grow"}); err != nil {
							w.fresh()
						}
						if resizeFinished(w.resized("grow").Status.Phase) {
							break
						}
						w.after(time.Second)
					}
					want, phase := "2Gi/2Gi", v1alpha1.ResizeDone
					if stuck {
						want, phase = "1Gi/1Gi", v1alpha1.ResizeRolledBack
					}
					if c.step >= n {
						steps = n + 1
					}
					require.Equal(t, phase, w.resized("grow").Status.Phase)
					for i := range 3 {
						require.Equal(t, want, w.memory(i))
					}
				})
			}
		}
	}
}
