package pods

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	typedv1 "k8s.io/client-go/kubernetes/typed/core/v1"
)

// Secrets reads secrets of the API server, each by its name when it is needed.
// It lists and watches none and keeps none.
type Secrets struct{ client typedv1.SecretsGetter }

// NewSecrets returns one that asks through a client of the core group.
func NewSecrets(client typedv1.SecretsGetter) *Secrets { return &Secrets{client} }

// Get returns the keys of one secret; the caller owns and overwrites them. An
// error holds no value of any.
func (s *Secrets) Get(ctx context.Context, namespace, name string) (map[string][]byte, error) {
	secret, err := s.client.Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil, fmt.Errorf("secret %s/%s is not there", namespace, name)
	case apierrors.IsForbidden(err):
		return nil, fmt.Errorf("the agent may not get secret %s/%s: give it a Role with resourceNames, see deploy/probes", namespace, name)
	case errors.Is(err, context.DeadlineExceeded):
		return nil, fmt.Errorf("get secret %s/%s: the API server did not answer in time", namespace, name)
	case err != nil:
		return nil, fmt.Errorf("get secret %s/%s: %s", namespace, name, apierrors.ReasonForError(err))
	}
	return secret.Data, nil
}
