package pods

import (
	"context"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// fakeAPIServer answers as one of Kubernetes does.
type fakeAPIServer struct {
	down      atomic.Bool
	resources atomic.Pointer[string]
	asked     atomic.Int32 // how often for resources
}

func (f *fakeAPIServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case f.down.Load():
		http.Error(w, "[-]etcd failed", http.StatusInternalServerError)
	case r.URL.Path == "/readyz":
		_, _ = w.Write([]byte("ok"))
	case r.URL.Path == "/api/v1":
		f.asked.Add(1)
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(*f.resources.Load()))
	default:
		http.NotFound(w, r)
	}
}

func (f *fakeAPIServer) serves(names string) *fakeAPIServer {
	text := `{"kind":"APIResourceList","groupVersion":"v1","resources":[` + names + `]}`
	f.resources.Store(&text)
	return f
}

func client(t *testing.T, h http.Handler) rest.Interface {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	c, err := kubernetes.NewForConfig(&rest.Config{Host: srv.URL, QPS: -1})
	require.NoError(t, err)
	return c.CoreV1().RESTClient()
}

func TestWhoWritesLimitsIsAskedUntilItIsKnown(t *testing.T) {
	f := new(fakeAPIServer).serves(`{"name":"pods"},{"name":"pods/resize"}`)
	s := NewAPIServer(client(t, f))
	require.ErrorIs(t, s.Reachability().Err, errNotAsked)
	require.Nil(t, s.Reachability().ServesResize)

	f.down.Store(true)
	s.ask(t.Context())
	require.ErrorContains(t, s.Reachability().Err, "ask the API server whether it is ready")
	require.Nil(t, s.Reachability().ServesResize)

	f.down.Store(false)
	s.ask(t.Context())
	require.NoError(t, s.Reachability().Err)
	require.True(t, *s.Reachability().ServesResize)
	s.ask(t.Context())
	require.EqualValues(t, 1, f.asked.Load(), "what is known is not asked each time")

	f.down.Store(true)
	s.ask(t.Context())
	require.Error(t, s.Reachability().Err)
	require.True(t, *s.Reachability().ServesResize, "what was said last stands while nothing else is")

	f.down.Store(false)
	f.serves(`{"name":"pods"}`)
	s.asked = s.asked.Add(-askResizeEvery)
	s.ask(t.Context())
	require.False(t, *s.Reachability().ServesResize, "a server that was rolled back")
}

func TestAnAnswerNobodyCanReadIsNone(t *testing.T) {
	for _, text := range []string{"", "[]", "{}", "<html>"} {
		t.Run(text, func(t *testing.T) {
			f := new(fakeAPIServer)
			f.resources.Store(&text)
			s := NewAPIServer(client(t, f))
			s.ask(t.Context())
			require.ErrorContains(t, s.Reachability().Err, "what the API server serves")
			require.Nil(t, s.Reachability().ServesResize)
		})
	}
}

func TestAskingEndsWithItsContext(t *testing.T) {
	var hang sync.WaitGroup
	hang.Add(1)
	s := NewAPIServer(client(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hang.Wait() })))
	t.Cleanup(hang.Done)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- s.Run(ctx) }()
	cancel()
	select {
	case err := <-ended:
		require.NoError(t, err)
	case <-time.After(10 * time.Second):
		t.Fatal("it goes on")
	}
}
