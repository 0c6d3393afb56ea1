package bpf

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestProbe(t *testing.T) {
	t.Run("what was seen becomes the detail", func(t *testing.T) {
		got := probe(t.Context(), "x", func(context.Context) (string, error) { return "seen", nil })
		require.Equal(t, Feature{Name: "x", OK: true, Detail: "seen"}, got)
	})
	t.Run("an error is told in one line", func(t *testing.T) {
		got := probe(t.Context(), "x", func(context.Context) (string, error) {
			return "seen", errors.Join(errors.New("first"), errors.New("second"))
		})
		require.Equal(t, Feature{Name: "x", Detail: "first; second"}, got)
	})
	t.Run("nothing is fired when the context is over", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		got := probe(ctx, "x", func(context.Context) (string, error) {
			t.Error("fired")
			return "", nil
		})
		require.Equal(t, Feature{Name: "x", Detail: "not probed: context canceled"}, got)
	})
}
