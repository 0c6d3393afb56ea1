package agent

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestTheHighestEpochWinsAndSurvivesARestart(t *testing.T) {
	dir := t.TempDir()
	still := func() time.Duration { return time.Hour }
	f := openFence(dir, still)
	require.Zero(t, f.Highest())
	require.Empty(t, f.Damage())
	_, err := f.enter(t.Context(), 0, true)
	require.ErrorIs(t, err, ErrInvalid)
	enter := func(epoch uint64, safe bool) error {
		leave, err := f.enter(t.Context(), epoch, safe)
		if err == nil {
			leave()
		}
		return err
	}
	require.NoError(t, enter(5, false))
	require.NoError(t, enter(5, false))
	b, err := os.ReadFile(filepath.Join(dir, "epoch"))
	require.NoError(t, err)
	require.Equal(t, "5\n", string(b))
	require.ErrorIs(t, enter(4, false), ErrRefused)
	require.ErrorIs(t, enter(4, true), ErrRefused)
	require.NoError(t, enter(9, true), "ending a fault is noted as well")

	f = openFence(dir, still)
	require.EqualValues(t, 9, f.Highest())
	require.ErrorContains(t, enter(8, false), "epoch 8 is older than 9")
	require.NoError(t, enter(9, false))
}

func TestAnEpochThatCannotBeNotedIsRefusedUnlessItEndsSomething(t *testing.T) {
	f := openFence(filepath.Join(t.TempDir(), "absent"), func() time.Duration { return 1 })
	_, err := f.enter(t.Context(), 3, false)
	require.ErrorIs(t, err, ErrRefused)
	require.ErrorContains(t, err, "note epoch 3, nothing was changed")
	_, err = f.enter(t.Context(), 3, true)
	require.NoError(t, err)
	_, err = f.enter(t.Context(), 2, true)
	require.ErrorContains(t, err, "fenced", "it is known all the same")
}

func TestAnAgentThatLostItsRecordListensFirst(t *testing.T) {
	for name, content := range map[string]string{"garbage": "\x00\x00\x00\x00", "empty": "", "zero": "0\n", "negative": "-4\n"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			require.NoError(t, os.WriteFile(filepath.Join(dir, "epoch"), []byte(content), 0o600))
			now := time.Hour
			f := openFence(dir, func() time.Duration { return now })
			require.Contains(t, f.Damage(), "damaged")
			enter := func(epoch uint64, safe bool) error {
				leave, err := f.enter(t.Context(), epoch, safe)
				if err == nil {
					leave()
				}
				return err
			}
			require.NoError(t, enter(3, true), "a fault can be ended at any time")
			// A replaced controller comes first.
			require.ErrorContains(t, enter(3, false), "ask again in 30s")
			now += 20 * time.Second
			require.ErrorContains(t, enter(4, false), "ask again in 10s")
			require.ErrorContains(t, enter(3, false), "fenced")
			now += 10 * time.Second
			require.ErrorContains(t, enter(3, false), "fenced")
			require.NoError(t, enter(4, false))
			require.Empty(t, f.Damage())
			require.EqualValues(t, 4, openFence(dir, f.now).Highest())
		})
	}
}

func TestAHigherEpochWaitsForWhatIsUnderWay(t *testing.T) {
	f := openFence(t.TempDir(), func() time.Duration { return 1 })
	older, err := f.enter(t.Context(), 1, false)
	require.NoError(t, err)
	same, err := f.enter(t.Context(), 1, false)
	require.NoError(t, err, "requests of one controller run side by side")
	same()
	_, err = f.enter(t.Context(), 2, true)
	require.NoError(t, err, "ending a fault waits for nobody")
	_, err = f.enter(t.Context(), 1, true)
	require.Error(t, err)

	entered := make(chan error)
	go func() {
		leave, err := f.enter(context.Background(), 2, false)
		if err == nil {
			leave()
		}
		entered <- err
	}()
	select {
	case <-entered:
		require.Fail(t, "it began beside an older one")
	case <-time.After(50 * time.Millisecond):
	}
	older()
	require.NoError(t, <-entered)

	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = f.enter(gone, 3, false)
	require.ErrorIs(t, err, context.Canceled, "a caller that went away is not served")
	require.EqualValues(t, 2, f.Highest())
}
