package v1alpha1

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestAnObjectWithABadDurationCanBeRead(t *testing.T) {
	// As older definitions let them in: one that cannot be read would hide all.
	var policies DatabasePolicyList
	require.NoError(t, json.Unmarshal([]byte(`{"items": [{"spec": {"chaos": {"maxDuration": "10 minutes"}}}, {"spec": {"engine": "redis"}}]}`), &policies))
	require.EqualValues(t, "redis", policies.Items[1].Spec.Engine)
	_, err := policies.Items[0].Spec.Chaos.MaxDuration.Parse()
	require.EqualError(t, err, `"10 minutes" is not a duration such as 90s`)
	var resizes InstanceResizeList
	require.NoError(t, json.Unmarshal([]byte(`{"items": [{"spec": {"timeout": "soon"}}]}`), &resizes))
	var experiments ChaosExperimentList
	require.NoError(t, json.Unmarshal([]byte(`{"items": [{"spec": {"fault": {"networkDelay": {"delay": "1ms", "jitter": "some"}}, "duration": "1s"}}]}`), &experiments))
}

func TestDurationsAreText(t *testing.T) {
	d, err := DurationOf(90 * time.Second).Parse()
	require.NoError(t, err)
	require.Equal(t, 90*time.Second, d)
	d, err = Duration("").Parse()
	require.NoError(t, err)
	require.Zero(t, d)
	b, err := json.Marshal(InstanceResizeSpec{Timeout: "2m"})
	require.NoError(t, err)
	require.Contains(t, string(b), `"timeout":"2m"`)
}
