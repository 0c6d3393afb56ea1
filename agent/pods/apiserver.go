package pods

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

const (
	// askEvery is how often the API server is asked whether it is there, and
	// answerWithin how long it may take.
	askEvery     = 10 * time.Second
	answerWithin = 5 * time.Second
	// askResizeEvery is how often it is asked again what it serves, since it may
	// be upgraded or rolled back.
	askResizeEvery = 10 * time.Minute
)

// errNotAsked is the state of an API server before the first answer.
var errNotAsked = errors.New("the API server was not asked yet")

// Reachability is what is known of the API server.
type Reachability struct {
	// Err says why the last answer was not a good one; nil when it was.
	Err error
	// Took is how long the last answer took, or was waited for.
	Took time.Duration
	// ServesResize says whether it serves pods/resize, which is version 1.33 by
	// default; nil until it has said so once.
	ServesResize *bool
}

// APIServer asks the API server now and then whether it is there and what it
// serves. Nothing is asked before Run. Reachability may be called from any
// goroutine and does not block.
type APIServer struct {
	client rest.Interface

	mu    sync.Mutex
	now   Reachability
	asked time.Time // when it last said what it serves
}

// NewAPIServer returns one that asks through a client of the core group, such
// as CoreV1().RESTClient().
func NewAPIServer(client rest.Interface) *APIServer {
	return &APIServer{client: client, now: Reachability{Err: errNotAsked}}
}

// Reachability returns what the last answers were.
func (s *APIServer) Reachability() Reachability {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

// Run asks until ctx ends and then returns nil.
func (s *APIServer) Run(ctx context.Context) error {
	t := time.NewTicker(askEvery)
	defer t.Stop()
	for {
		s.ask(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
	}
}

// ask asks once. An answer that came too late is none.
func (s *APIServer) ask(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	start := time.Now()
	_, err := s.client.Get().AbsPath("/readyz").DoRaw(ctx)
	took := time.Since(start)
	if err != nil {
		err = fmt.Errorf("ask the API server whether it is ready: %w", err)
	}
	s.mu.Lock()
	s.now.Err, s.now.Took = err, took
	known := s.now.ServesResize != nil && time.Since(s.asked) < askResizeEvery
	s.mu.Unlock()
	if err != nil || known {
		return
	}
	serves, err := s.servesResize(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.now.Err = err
		return
	}
	s.now.ServesResize, s.asked = &serves, time.Now()
}

// servesResize asks for the resources of the core group.
func (s *APIServer) servesResize(ctx context.Context) (bool, error) {
	data, err := s.client.Get().AbsPath("/api/v1").SetHeader("Accept", "application/json").DoRaw(ctx)
	if err != nil {
		return false, fmt.Errorf("ask the API server what it serves: %w", err)
	}
	var list metav1.APIResourceList
	if err := json.Unmarshal(data, &list); err != nil {
		return false, fmt.Errorf("read what the API server serves: %w", err)
	}
	if len(list.APIResources) == 0 {
		return false, errors.New("read what the API server serves: it lists nothing")
	}
	for _, r := range list.APIResources {
		if r.Name == "pods/resize" {
			return true, nil
		}
	}
	return false, nil
}
