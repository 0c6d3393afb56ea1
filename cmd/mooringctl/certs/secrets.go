package certs

import (
	"fmt"
	"os"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Secrets returns the certificates of dir as the two Secrets that the agents and
// the controller mount.
func Secrets(dir, namespace string) ([]corev1.Secret, error) {
	var out []corev1.Secret
	for _, side := range []string{"agent", "controller"} {
		data := map[string][]byte{}
		for _, name := range []string{certFile, keyFile, caFile} {
			b, err := os.ReadFile(filepath.Join(dir, side, name))
			if err != nil {
				return nil, fmt.Errorf("read certificates: %w", err)
			}
			data[name] = b
		}
		out = append(out, corev1.Secret{
			TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"},
			ObjectMeta: metav1.ObjectMeta{
				Name: "mooring-" + side + "-tls", Namespace: namespace,
				Labels: map[string]string{
					"app.kubernetes.io/name":    "mooring-" + side,
					"app.kubernetes.io/part-of": "mooring",
				},
			},
			Type: corev1.SecretTypeTLS,
			Data: data,
		})
	}
	return out, nil
}
