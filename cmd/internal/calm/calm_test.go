package calm

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

func TestTheSameMessageIsSaidOnceInAPeriod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		log := slog.New(New(slog.NewTextHandler(&b, nil), time.Minute)).With("component", "client-go")
		for i := range 10 {
			log.Error("no lease", "attempt", i)
			log.WithGroup("x").Error("no lease", "attempt", i)
			time.Sleep(time.Second)
		}
		log.Warn("no lease")
		log.Error("another")
		require.Equal(t, 3, strings.Count(b.String(), "\n"), b.String())
		require.Contains(t, b.String(), `component=client-go attempt=0`)
		time.Sleep(time.Minute)
		log.Error("no lease")
		require.Contains(t, b.String(), "left_out=19")
	})
}

func TestWhatIsRememberedIsBounded(t *testing.T) {
	var b bytes.Buffer
	h := New(slog.NewTextHandler(&b, nil), time.Minute)
	log := slog.New(h)
	for i := range 3 * limit {
		log.Error(fmt.Sprint("message ", i))
	}
	require.Equal(t, 3*limit, strings.Count(b.String(), "\n"), "what is new is never left out")
	require.LessOrEqual(t, len(h.said.all), limit)
}
