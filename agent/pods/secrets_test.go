package pods

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

func TestSecretsAreReadByNameOnly(t *testing.T) {
	client := fake.NewClientset(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "login"}, Data: map[string][]byte{"password": []byte("hunter2")}})
	s := NewSecrets(client.CoreV1())
	data, err := s.Get(t.Context(), "shop", "login")
	require.NoError(t, err)
	require.Equal(t, "hunter2", string(data["password"]))
	_, err = s.Get(t.Context(), "shop", "other")
	require.EqualError(t, err, "secret shop/other is not there")
	client.PrependReactor("get", "secrets", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewForbidden(schema.GroupResource{Resource: "secrets"}, "login", nil)
	})
	_, err = s.Get(t.Context(), "shop", "login")
	require.ErrorContains(t, err, "resourceNames")
	for _, a := range client.Actions() {
		require.Equal(t, "get", a.GetVerb(), "nothing is listed or watched")
	}
}
