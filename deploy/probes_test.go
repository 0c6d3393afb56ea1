package deploy

import (
	"testing"

	"github.com/stretchr/testify/require"
	rbacv1 "k8s.io/api/rbac/v1"
)

func TestProbesMayReadNamedSecretsOnly(t *testing.T) {
	all := split(t, []byte(read(t, "probes/role.yaml")))
	role := find[*rbacv1.Role](t, all, "Role mooring-agent-probe")
	require.Equal(t, []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"secrets"}, ResourceNames: []string{"orders-probe"}, Verbs: []string{"get"}}}, role.Rules)
	binding := find[*rbacv1.RoleBinding](t, all, "RoleBinding mooring-agent-probe")
	require.Equal(t, []rbacv1.Subject{{Kind: "ServiceAccount", Name: "mooring-agent", Namespace: "mooring-system"}}, binding.Subjects)
	require.Equal(t, role.Namespace, binding.Namespace)

	policy, errs := definitions(t)["DatabasePolicy"].judge(t, read(t, "probes/policy.yaml"), nil)
	require.Empty(t, errs)
	require.Equal(t, role.Namespace, object(policy).text("metadata", "namespace"))
	require.Equal(t, role.Rules[0].ResourceNames[0], object(policy).text("spec", "probe", "secretRef", "name"))
}
