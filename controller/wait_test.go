package controller

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

func testOptions(host string) Options {
	return Options{
		Config: &rest.Config{Host: host}, Namespace: "mooring-system", Identity: "me", LeaderElect: true,
		AgentSelector: "app.kubernetes.io/name=mooring-agent", AgentPort: 9751, AgentName: "mooring-agent", TLSDir: "/etc/mooring/tls",
		Log: slog.New(slog.DiscardHandler),
	}
}

func TestBadSettingsAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Options)
		says   string
	}{
		"selector":  {func(o *Options) { o.AgentSelector = "a=(" }, "agent selector"},
		"everybody": {func(o *Options) { o.AgentSelector = "" }, "agent selector is empty"},
		"namespace": {func(o *Options) { o.Namespace = "" }, "namespace"},
		"identity":  {func(o *Options) { o.Identity = "" }, "identity"},
		"port":      {func(o *Options) { o.AgentPort = 0 }, "port 0"},
	} {
		t.Run(name, func(t *testing.T) {
			o := testOptions("http://127.0.0.1:1")
			c.change(&o)
			_, err := New(o)
			require.ErrorContains(t, err, c.says)
		})
	}
}

// run runs a controller against an API server and returns where it serves.
func runController(t *testing.T, host string) (base string) {
	t.Helper()
	c, err := New(testOptions(host))
	require.NoError(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
	})
	return "http://" + l.Addr().String()
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	r, err := http.Get(url)
	if err != nil {
		return 0, err.Error()
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	require.NoError(t, err)
	return r.StatusCode, string(b)
}

func TestWhatIsMissingIsWaitedForAndNamed(t *testing.T) {
	var kinds atomic.Pointer[[]metav1.APIResource]
	kinds.Store(&[]metav1.APIResource{{Name: "databasepolicies", Kind: "DatabasePolicy"}})
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/apis/mooring.dev/v1alpha1" {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		require.NoError(t, json.NewEncoder(w).Encode(metav1.APIResourceList{
			TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: "mooring.dev/v1alpha1", APIResources: *kinds.Load(),
		}))
	}))
	defer api.Close()
	for name, c := range map[string]struct{ host, says string }{
		"the custom resources": {api.URL, "InstanceResize, ChaosExperiment"},
		"the API server":       {"http://127.0.0.1:1", "connection refused"},
	} {
		t.Run(name, func(t *testing.T) {
			base := runController(t, c.host)
			require.Eventually(t, func() bool {
				code, body := get(t, base+"/readyz")
				return code == http.StatusServiceUnavailable && strings.Contains(body, c.says)
			}, 20*time.Second, 20*time.Millisecond)
			code, _ := get(t, base+"/healthz")
			require.Equal(t, http.StatusOK, code)
			_, metrics := get(t, base+"/metrics")
			require.Contains(t, metrics, "mooring_controller_leader 0")
			require.Contains(t, metrics, "mooring_controller_queue_depth 0")
		})
	}
}
