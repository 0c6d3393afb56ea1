package main

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestWatchdog(t *testing.T) {
	// after runs act beside a watchdog and returns when the guest was given up.
	after := func(t *testing.T, act func(*watchdog)) (time.Duration, *hangError) {
		t.Helper()
		begun := time.Now()
		w := newWatchdog(3 * time.Minute)
		go act(w)
		var hang *hangError
		require.ErrorAs(t, w.wait(t.Context()), &hang)
		return time.Since(begun).Round(time.Second), hang
	}
	beats := func(w *watchdog, n int) {
		for range n {
			w.alive(running, 10*time.Second)
			<-time.After(time.Second)
		}
	}
	t.Run("gives a guest that never comes up the time to boot", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			took, hang := after(t, func(*watchdog) {})
			require.Equal(t, 3*time.Minute, took)
			require.ErrorContains(t, hang, "did not come up within 3m0s")
		})
	})
	t.Run("notices the end of the heartbeats", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			took, hang := after(t, func(w *watchdog) { beats(w, 300) })
			require.Equal(t, 309*time.Second, took)
			require.ErrorContains(t, hang, "no sign of life for 10s; it was killed and not tried again")
		})
	})
	t.Run("does not count the time our own output is blocked", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			took, _ := after(t, func(w *watchdog) {
				beats(w, 1)
				w.pause()
				<-time.After(time.Hour)
				w.resume()
			})
			require.Equal(t, time.Hour+11*time.Second, took)
		})
	})
	t.Run("notices a guest that does not power off", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			_, hang := after(t, func(w *watchdog) { w.alive(stopping, time.Second) })
			require.ErrorContains(t, hang, "did not power off within 1s")
		})
	})
	t.Run("ends with its context", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			require.NoError(t, newWatchdog(time.Hour).wait(ctx))
		})
	})
}
