package deploy

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestEveryManifestIsOfItsTypeAndOurs(t *testing.T) {
	for dir, all := range renderings(t) {
		names := map[string]bool{}
		for _, o := range all {
			require.False(t, names[o.name()], "%s: %s is there twice", dir, o.name())
			names[o.name()] = true
			if !foreign(o) {
				typed(t, o)
			}
			if ns := o.text("metadata", "namespace"); ns != "" {
				require.Equal(t, "mooring-system", ns, "%s: %s", dir, o.name())
			}
			if o.text("kind") != "CustomResourceDefinition" {
				require.Equal(t, "mooring", o.at("metadata", "labels").(map[string]any)["app.kubernetes.io/part-of"], "%s: %s", dir, o.name())
			}
		}
	}
}

func TestImagesAreTheTwoOfTheDockerfile(t *testing.T) {
	stages := regexp.MustCompile(`(?m)^FROM scratch AS (\w+)$`).FindAllStringSubmatch(read(t, "Dockerfile"), -1)
	require.Len(t, stages, 2)
	known := map[string]bool{}
	for _, s := range stages {
		known["mooring-"+s[1]] = true
	}
	for dir, all := range renderings(t) {
		for name, spec := range pods(t, all) {
			for _, c := range append(spec.InitContainers, spec.Containers...) {
				image, tag, ok := strings.Cut(c.Image, ":")
				require.True(t, ok && known[image], "%s: %s has image %q", dir, name, c.Image)
				require.Regexp(t, `^v\d+\.\d+\.\d+$`, tag)
				require.Contains(t, read(t, "helm/mooring/Chart.yaml"), "appVersion: "+tag+"\n")
			}
		}
	}
}

func TestFinalImagesHoldOneBinary(t *testing.T) {
	_, final, ok := strings.Cut(read(t, "Dockerfile"), "FROM scratch AS agent")
	require.True(t, ok)
	binary := ""
	for line := range strings.Lines("FROM scratch AS agent" + final) {
		word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch word {
		case "", "#", "LABEL", "EXPOSE":
		case "FROM":
			_, stage, _ := strings.Cut(rest, " AS ")
			binary = "mooring-" + stage
		case "COPY":
			require.Equal(t, fmt.Sprintf("--from=build /out/%s /%s", binary, binary), rest)
		case "ENTRYPOINT":
			require.Equal(t, fmt.Sprintf(`["/%s"]`, binary), rest)
		case "USER":
			require.Regexp(t, `^\d+:\d+$`, rest)
		default:
			require.Fail(t, "instruction "+word+" in a final stage")
		}
	}
}

// flags are those that a command's source defines: the second argument of every
// call of a method named ...Var or ...VarP.
func flags(t *testing.T, dir string) map[string]bool {
	t.Helper()
	known := map[string]bool{"help": true, "version": true}
	for _, path := range files(t, dir, "*.go") {
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		ast.Inspect(f, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) < 2 {
				return true
			}
			method, ok := call.Fun.(*ast.SelectorExpr)
			name, literal := call.Args[1].(*ast.BasicLit)
			if ok && literal && name.Kind == token.STRING && strings.Contains(method.Sel.Name, "Var") {
				text, err := strconv.Unquote(name.Value)
				require.NoError(t, err)
				known[text] = true
			}
			return true
		})
	}
	return known
}

func TestContainersAreGivenFlagsThatTheirProgramsHave(t *testing.T) {
	known := map[string]map[string]bool{"mooring-agent": flags(t, "../cmd/mooring-agent"), "mooring-controller": flags(t, "../cmd/mooring-controller")}
	require.True(t, known["mooring-agent"]["listen"] && known["mooring-controller"]["identity"], "the flags were not found")
	for dir, all := range renderings(t) {
		for name, spec := range pods(t, all) {
			for _, c := range append(spec.InitContainers, spec.Containers...) {
				program, _, _ := strings.Cut(c.Image, ":")
				for _, a := range c.Args {
					flag, _, _ := strings.Cut(strings.TrimPrefix(a, "--"), "=")
					require.True(t, known[program][flag] || a == "uninstall", "%s: %s of %s: %s has no such flag", dir, a, name, program)
				}
			}
		}
	}
}

func TestPortsAreTheSameEverywhere(t *testing.T) {
	all := kustomize(t, "base")
	for name, spec := range pods(t, all) {
		c := spec.Containers[0]
		ports := map[string]int32{}
		for _, p := range c.Ports {
			ports[p.Name] = p.ContainerPort
			if spec.HostNetwork {
				require.Equal(t, p.ContainerPort, p.HostPort, name)
			}
		}
		require.Contains(t, c.Args, fmt.Sprintf("--metrics=:%d", ports["metrics"]), name)
		for what, probe := range map[string]*corev1.Probe{"liveness": c.LivenessProbe, "readiness": c.ReadinessProbe} {
			require.NotNil(t, probe, "%s has no %s probe", name, what)
			require.Equal(t, "metrics", probe.HTTPGet.Port.String())
		}
		service := find[*corev1.Service](t, all, "Service "+name)
		require.Equal(t, ports["metrics"], service.Spec.Ports[0].Port)
		require.Equal(t, strconv.Itoa(int(ports["metrics"])), service.Annotations["prometheus.io/port"])
	}
	agent := find[*appsv1.DaemonSet](t, all, "DaemonSet mooring-agent").Spec.Template.Spec.Containers[0]
	require.Contains(t, agent.Args, fmt.Sprintf("--listen=:%d", agent.Ports[1].ContainerPort))
	policy := find[*networkingv1.NetworkPolicy](t, all, "NetworkPolicy mooring-controller")
	var out []int
	for _, p := range policy.Spec.Egress[0].Ports {
		out = append(out, p.Port.IntValue())
	}
	require.Contains(t, out, int(agent.Ports[1].ContainerPort))
	require.Equal(t, 9752, policy.Spec.Ingress[0].Ports[0].Port.IntValue())
}

func TestSelectorsSelectTheirOwnPods(t *testing.T) {
	all := kustomize(t, "base")
	selects := func(sel map[string]string, name string) {
		t.Helper()
		require.Equal(t, map[string]string{"app.kubernetes.io/name": name}, sel)
	}
	agent := find[*appsv1.DaemonSet](t, all, "DaemonSet mooring-agent")
	selects(agent.Spec.Selector.MatchLabels, "mooring-agent")
	require.Equal(t, "mooring-agent", agent.Spec.Template.Labels["app.kubernetes.io/name"])
	d := find[*appsv1.Deployment](t, all, "Deployment mooring-controller")
	for _, s := range []*metav1.LabelSelector{
		d.Spec.Selector, d.Spec.Template.Spec.TopologySpreadConstraints[0].LabelSelector,
		d.Spec.Template.Spec.Affinity.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution[0].PodAffinityTerm.LabelSelector,
		find[*policyv1.PodDisruptionBudget](t, all, "PodDisruptionBudget mooring-controller").Spec.Selector,
		&find[*networkingv1.NetworkPolicy](t, all, "NetworkPolicy mooring-controller").Spec.PodSelector,
	} {
		selects(s.MatchLabels, "mooring-controller")
	}
	for _, name := range []string{"mooring-agent", "mooring-controller"} {
		selects(find[*corev1.Service](t, all, "Service "+name).Spec.Selector, name)
	}
}

func TestPrivilegesAreThoseOfTheReadme(t *testing.T) {
	doc := read(t, "README.md")
	row := func(what string) {
		t.Helper()
		require.Contains(t, doc, "\n| `"+what+"` |", "the README does not say what %s is for", what)
	}
	for dir, all := range renderings(t) {
		for name, spec := range pods(t, all) {
			require.False(t, spec.HostIPC, name)
			require.NotNil(t, spec.EnableServiceLinks)
			for _, c := range append(spec.InitContainers, spec.Containers...) {
				s := c.SecurityContext
				require.NotNil(t, s, "%s: %s", dir, name)
				require.False(t, s.Privileged != nil && *s.Privileged, "%s: %s is privileged", dir, name)
				require.True(t, s.ReadOnlyRootFilesystem != nil && *s.ReadOnlyRootFilesystem, "%s: %s", dir, name)
				require.True(t, s.AllowPrivilegeEscalation != nil && !*s.AllowPrivilegeEscalation, "%s: %s", dir, name)
				require.Equal(t, []corev1.Capability{"ALL"}, s.Capabilities.Drop, "%s: %s", dir, name)
				for _, k := range s.Capabilities.Add {
					row(string(k))
				}
			}
			for _, v := range spec.Volumes {
				if v.HostPath != nil && dir == "base" {
					row(v.HostPath.Path)
				}
			}
			if spec.HostNetwork {
				row("hostNetwork")
			}
			if spec.HostPID {
				row("hostPID")
			}
		}
	}
}

func TestTheControllerNeedsNoPrivilege(t *testing.T) {
	spec := pods(t, kustomize(t, "base"))["mooring-controller"]
	require.True(t, *spec.SecurityContext.RunAsNonRoot)
	require.Equal(t, corev1.SeccompProfileTypeRuntimeDefault, spec.SecurityContext.SeccompProfile.Type)
	require.Empty(t, spec.Containers[0].SecurityContext.Capabilities.Add)
	require.False(t, spec.HostNetwork || spec.HostPID)
	for _, v := range spec.Volumes {
		require.Nil(t, v.HostPath)
	}
	require.Regexp(t, `(?m)^USER 65532:65532$`, read(t, "Dockerfile"))
	require.EqualValues(t, 65532, *spec.SecurityContext.RunAsUser)
}

// rules are the rules of every role, by its name.
func rules(t *testing.T, all []object) map[string][]rbacv1.PolicyRule {
	t.Helper()
	found := map[string][]rbacv1.PolicyRule{}
	for _, o := range all {
		switch o.text("kind") {
		case "ClusterRole":
			found[o.name()] = find[*rbacv1.ClusterRole](t, all, o.name()).Rules
		case "Role":
			found[o.name()] = find[*rbacv1.Role](t, all, o.name()).Rules
		}
	}
	return found
}

func TestRolesSayExactlyWhatTheyAllow(t *testing.T) {
	all := kustomize(t, "base")
	for name, rr := range rules(t, all) {
		for _, r := range rr {
			for _, s := range slices.Concat(r.APIGroups, r.Resources, r.Verbs, r.NonResourceURLs) {
				require.NotContains(t, s, "*", name)
			}
			for _, never := range []string{"secrets", "pods/exec", "pods/attach", "nodes", "configmaps", "serviceaccounts/token"} {
				require.NotContains(t, r.Resources, never, name)
			}
		}
	}
	lines := func(name string) (out []string) {
		for _, r := range rules(t, all)[name] {
			for _, res := range r.Resources {
				out = append(out, res+" "+strings.Join(r.ResourceNames, ",")+" "+strings.Join(r.Verbs, ","))
			}
		}
		return out
	}
	require.Equal(t, []string{"pods  get,list,watch"}, lines("ClusterRole mooring-agent"))
	require.ElementsMatch(t, []string{
		"databasepolicies  get,list,watch", "instanceresizes  get,list,watch", "chaosexperiments  get,list,watch",
		"databasepolicies/status  patch", "instanceresizes/status  patch", "chaosexperiments/status  patch",
		"chaosexperiments  patch", "chaosexperiments/finalizers  update", "pods  get,list,watch", "pods/resize  patch", "events  create,patch",
	}, lines("ClusterRole mooring-controller"))
	require.ElementsMatch(t, []string{"leases  create", "leases mooring-controller get,update"}, lines("Role mooring-controller"))
	for _, l := range lines("ClusterRole mooring-view") {
		require.True(t, strings.HasSuffix(l, " get,list,watch"), "mooring-view may %s", l)
	}
	for _, role := range []string{"mooring-operator", "mooring-chaos", "mooring-doctor"} {
		r := find[*rbacv1.ClusterRole](t, all, "ClusterRole "+role)
		for label := range r.Labels {
			require.NotContains(t, label, "aggregate", "%s comes with another role", role)
		}
	}
	require.NotContains(t, strings.Join(lines("ClusterRole mooring-operator"), "\n"), "chaosexperiments  get,list,watch,create")
}

func TestAgentOnlyIsTheBaseWithoutItsListener(t *testing.T) {
	base := find[*appsv1.DaemonSet](t, kustomize(t, "base"), "DaemonSet mooring-agent")
	only := find[*appsv1.DaemonSet](t, kustomize(t, "overlays/agent-only"), "DaemonSet mooring-agent")
	c := &base.Spec.Template.Spec.Containers[0]
	c.Args = slices.DeleteFunc(c.Args, func(a string) bool { return strings.HasPrefix(a, "--listen") || strings.HasPrefix(a, "--tls-dir") })
	c.Ports = slices.DeleteFunc(c.Ports, func(p corev1.ContainerPort) bool { return p.Name == "grpc" })
	c.VolumeMounts = slices.DeleteFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == "tls" })
	base.Spec.Template.Spec.Volumes = slices.DeleteFunc(base.Spec.Template.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == "tls" })
	require.Equal(t, base, only)
	require.Equal(t, read(t, "base/namespace.yaml"), read(t, "overlays/agent-only/namespace.yaml"))
}

func TestCertificatesAreWhatBothSidesAskFor(t *testing.T) {
	for _, o := range kustomize(t, "overlays/cert-manager") {
		name := o.text("metadata", "name")
		if o.text("kind") != "Certificate" || name == "mooring-ca" {
			continue
		}
		require.Equal(t, name+"-tls", o.text("spec", "secretName"))
		require.Equal(t, []any{name}, o.at("spec", "dnsNames"))
		usage := map[string]string{"mooring-agent": "server auth", "mooring-controller": "client auth"}[name]
		require.Equal(t, []any{"digital signature", usage}, o.at("spec", "usages"))
	}
	for _, side := range []string{"agent", "controller"} {
		s := find[*corev1.Secret](t, selfSigned(t), "Secret mooring-"+side+"-tls")
		require.Equal(t, corev1.SecretTypeTLS, s.Type)
		for _, name := range []string{"tls.crt", "tls.key", "ca.crt"} {
			require.Equal(t, side+name, string(s.Data[name]))
		}
	}
	for name, spec := range pods(t, kustomize(t, "base")) {
		require.True(t, slices.ContainsFunc(spec.Volumes, func(v corev1.Volume) bool { return v.Secret != nil && v.Secret.SecretName == name+"-tls" }), name)
	}
}

func TestTheServiceUnitHasTheCapabilitiesOfTheDaemonSet(t *testing.T) {
	var want []string
	for _, k := range pods(t, kustomize(t, "base"))["mooring-agent"].Containers[0].SecurityContext.Capabilities.Add {
		want = append(want, "CAP_"+string(k))
	}
	line := regexp.MustCompile(`(?m)^CapabilityBoundingSet=(.*)$`).FindStringSubmatch(read(t, "standalone/mooring-agent.service"))
	require.Len(t, line, 2)
	require.ElementsMatch(t, want, strings.Fields(line[1]))
	undo := pods(t, kustomize(t, "uninstall"))["mooring-uninstall"].InitContainers[0].SecurityContext.Capabilities.Add
	require.Len(t, undo, len(want))
}
