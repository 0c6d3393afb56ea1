package deploy

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	crdvalidation "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/validation"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/defaulting"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	"k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/util/validation/field"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"sigs.k8s.io/yaml"

	"github.com/mooring-dev/mooring/agent/active"
	"github.com/mooring-dev/mooring/agent/state"
)

// definition is a CustomResourceDefinition, ready to judge objects as the API
// server does.
type definition struct {
	structural *schema.Structural
	schema     validation.SchemaValidator
	rules      *cel.Validator
}

// definitions returns those of crds/, by kind.
func definitions(t *testing.T) map[string]definition {
	t.Helper()
	all := map[string]definition{}
	for _, o := range kustomize(t, "crds") {
		v1, ok := typed(t, o).(*apiextensionsv1.CustomResourceDefinition)
		require.True(t, ok)
		apiextensionsv1.SetDefaults_CustomResourceDefinition(v1)
		crd := &apiextensions.CustomResourceDefinition{}
		require.NoError(t, apiextensionsv1.Convert_v1_CustomResourceDefinition_To_apiextensions_CustomResourceDefinition(v1, crd, nil))
		require.Empty(t, crdvalidation.ValidateCustomResourceDefinition(t.Context(), crd), "the API server would not take %s", o.name())
		props := crd.Spec.Versions[0].Schema
		if props == nil {
			props = crd.Spec.Validation
		}
		s, err := schema.NewStructural(props.OpenAPIV3Schema)
		require.NoError(t, err)
		v, _, err := validation.NewSchemaValidator(props.OpenAPIV3Schema)
		require.NoError(t, err)
		all[crd.Spec.Names.Kind] = definition{s, v, cel.NewValidator(s, true, celconfig.PerCallLimit)}
	}
	return all
}

// judge returns what the API server would have against an object, nil when it
// would take it; old is the object before an update.
func (d definition) judge(t *testing.T, text string, old map[string]any) (map[string]any, field.ErrorList) {
	t.Helper()
	b, err := yaml.YAMLToJSONStrict([]byte(text))
	require.NoError(t, err)
	var o map[string]any
	require.NoError(t, json.Unmarshal(b, &o))
	var errs field.ErrorList
	unknown := pruning.PruneWithOptions(o, d.structural, true, schema.UnknownFieldPathOptions{TrackUnknownFieldPaths: true})
	for _, path := range unknown {
		errs = append(errs, field.Invalid(field.NewPath(path), nil, "unknown field"))
	}
	defaulting.Default(o, d.structural)
	if old == nil {
		errs = append(errs, validation.ValidateCustomResource(nil, o, d.schema)...)
	} else {
		errs = append(errs, validation.ValidateCustomResourceUpdate(nil, o, old, d.schema)...)
	}
	errs = append(errs, listtype.ValidateListSetsAndMaps(nil, d.structural, o)...)
	if len(errs) == 0 {
		// A missing old object is a nil any, not a nil map in one.
		var before any
		if old != nil {
			before = old
		}
		more, _ := d.rules.Validate(t.Context(), nil, d.structural, o, before, celconfig.RuntimeCELCostBudget)
		errs = more
	}
	return o, errs
}

func TestExamplesAreTaken(t *testing.T) {
	all := definitions(t)
	kinds := map[string]bool{}
	for _, path := range files(t, "examples", "*.yaml") {
		var o object
		require.NoError(t, yaml.Unmarshal([]byte(read(t, path)), &o))
		typed(t, o)
		kind := o.text("kind")
		kinds[kind] = true
		_, errs := all[kind].judge(t, read(t, path), nil)
		require.Empty(t, errs, filepath.Base(path))
	}
	require.Len(t, kinds, len(all), "each kind has an example")
}

func TestBadObjectsAreNotTaken(t *testing.T) {
	all := definitions(t)
	const experiment = "apiVersion: mooring.dev/v1alpha1\nkind: ChaosExperiment\nmetadata: {name: x}\nspec:\n"
	const policy = "apiVersion: mooring.dev/v1alpha1\nkind: DatabasePolicy\nmetadata: {name: x}\nspec:\n"
	const resize = "apiVersion: mooring.dev/v1alpha1\nkind: InstanceResize\nmetadata: {name: x}\nspec:\n"
	for name, row := range map[string]struct{ text, says string }{
		"no duration":                   {experiment + "  {target: {policy: p}, fault: {freeze: {}}}", "spec.duration: Required"},
		"a short duration":              {experiment + "  {target: {policy: p}, fault: {freeze: {}}, duration: 10ms}", "from 1s to 24h"},
		"a negative duration":           {experiment + "  {target: {policy: p}, fault: {freeze: {}}, duration: -5s}", "from 1s to 24h"},
		"words as a duration":           {experiment + "  {target: {policy: p}, fault: {freeze: {}}, duration: soon}", "duration"},
		"no fault":                      {experiment + "  {target: {policy: p}, fault: {}, duration: 5s}", "at least 1"},
		"two faults":                    {experiment + "  {target: {policy: p}, fault: {freeze: {}, networkLoss: {percent: 5}}, duration: 5s}", "at most 1"},
		"an unknown fault":              {experiment + "  {target: {policy: p}, fault: {meteor: {}}, duration: 5s}", "meteor"},
		"no policy":                     {experiment + "  {target: {}, fault: {freeze: {}}, duration: 5s}", "spec.target.policy: Required"},
		"an empty policy":               {experiment + "  {target: {policy: ''}, fault: {freeze: {}}, duration: 5s}", "spec.target.policy"},
		"an unknown role":               {experiment + "  {target: {policy: p, role: leader}, fault: {freeze: {}}, duration: 5s}", `"leader"`},
		"a count of none":               {experiment + "  {target: {policy: p, count: 0}, fault: {freeze: {}}, duration: 5s}", "spec.target.count"},
		"a count above all":             {experiment + "  {target: {policy: p, count: 101%}, fault: {freeze: {}}, duration: 5s}", "spec.target.count"},
		"a pod named twice":             {experiment + "  {target: {policy: p, pods: [a, a]}, fault: {freeze: {}}, duration: 5s}", "Duplicate"},
		"a pod's bad name":              {experiment + "  {target: {policy: p, pods: ['a b']}, fault: {freeze: {}}, duration: 5s}", "spec.target.pods[0]"},
		"a delay too long":              {experiment + "  {target: {policy: p}, fault: {networkDelay: {delay: 2m}}, duration: 5s}", "from 1us to 1m"},
		"no delay":                      {experiment + "  {target: {policy: p}, fault: {networkDelay: {}}, duration: 5s}", "delay: Required"},
		"a misplaced field":             {experiment + "  {target: {policy: p}, fault: {onControlLoss: x, freeze: {}}, duration: 5s}", "onControlLoss"},
		"an unknown ending":             {experiment + "  {target: {policy: p}, fault: {freeze: {}}, duration: 5s, onControlLoss: Panic}", `"Panic"`},
		"an unknown engine":             {policy + "  {selector: {matchLabels: {a: b}}, engine: oracle}", `"oracle"`},
		"no engine":                     {policy + "  {selector: {matchLabels: {a: b}}}", "spec.engine: Required"},
		"no selector":                   {policy + "  {engine: redis}", "spec.selector: Required"},
		"an unknown place":              {policy + "  {selector: {}, engine: redis, numa: Anywhere}", `"Anywhere"`},
		"a role of no label":            {policy + "  {selector: {}, engine: redis, role: {}}", "spec.role.label: Required"},
		"none affected":                 {policy + "  {selector: {}, engine: redis, chaos: {maxAffected: 0}}", "spec.chaos.maxAffected"},
		"a probe of no secret":          {policy + "  {selector: {}, engine: redis, probe: {}}", "secretRef: Required"},
		"a secret elsewhere":            {policy + "  {selector: {}, engine: redis, probe: {secretRef: {name: a, namespace: b}}}", "namespace"},
		"a probe too often":             {policy + "  {selector: {}, engine: mysql, probe: {secretRef: {name: a}, read: {period: 500ms}}}", "from 1s to 1h"},
		"a write too often":             {policy + "  {selector: {}, engine: mysql, probe: {secretRef: {name: a}, write: {mode: Replicated, period: 9s}}}", "from 10s to 1h"},
		"an unknown write":              {policy + "  {selector: {}, engine: mysql, probe: {secretRef: {name: a}, write: {mode: Local}}}", `"Local"`},
		"an unknown tls":                {policy + "  {selector: {}, engine: mysql, probe: {secretRef: {name: a}, tls: Prefer}}", `"Prefer"`},
		"a heartbeat for redis":         {policy + "  {selector: {}, engine: redis, probe: {secretRef: {name: a}, write: {mode: Replicated}}}", "for postgresql, mysql, mariadb and percona"},
		"a heartbeat for tidb":          {policy + "  {selector: {}, engine: tidb, probe: {secretRef: {name: a}, write: {mode: Replicated}}}", "for postgresql, mysql, mariadb and percona"},
		"a probe for tidb":              {policy + "  {selector: {}, engine: tidb, probe: {secretRef: {name: a}}}", "probe is for postgresql"},
		"a probe for mongodb":           {policy + "  {selector: {}, engine: mongodb, probe: {secretRef: {name: a}}}", "probe is for postgresql"},
		"a probe too seldom":            {policy + "  {selector: {}, engine: mysql, probe: {secretRef: {name: a}, read: {period: 2h}}}", "from 1s to 1h"},
		"a probe in words":              {policy + "  {selector: {}, engine: mysql, probe: {secretRef: {name: a}, read: {period: soon}}}", "spec.probe.read.period"},
		"a write too seldom":            {policy + "  {selector: {}, engine: mysql, probe: {secretRef: {name: a}, write: {period: 2h}}}", "from 10s to 1h"},
		"an empty secret":               {policy + "  {selector: {}, engine: mysql, probe: {secretRef: {name: ''}}}", "spec.probe.secretRef.name"},
		"a secret in capitals":          {policy + "  {selector: {}, engine: mysql, probe: {secretRef: {name: My_Secret}}}", "spec.probe.secretRef.name"},
		"a secret that ends .":          {policy + "  {selector: {}, engine: mysql, probe: {secretRef: {name: a.}}}", "spec.probe.secretRef.name"},
		"a long database":               {policy + "  {selector: {}, engine: mysql, probe: {secretRef: {name: a}, database: " + strings.Repeat("d", 64) + "}}", "spec.probe.database"},
		"a database in bytes":           {policy + "  {selector: {}, engine: mysql, probe: {secretRef: {name: a}, database: " + strings.Repeat("库", 22) + "}}", "at most 63 bytes"},
		"a database with a NUL":         {policy + `  {selector: {}, engine: mysql, probe: {secretRef: {name: a}, database: "a\0b"}}`, "spec.probe.database"},
		"a container's name":            {policy + "  {selector: {}, engine: redis, container: Foo_Bar}", "spec.container"},
		"a container of dots":           {policy + "  {selector: {}, engine: redis, container: a.b}", "spec.container"},
		"a top below none":              {policy + "  {selector: {}, engine: redis, statements: {top: -1}}", "spec.statements.top"},
		"a top of too many":             {policy + "  {selector: {}, engine: redis, statements: {top: 501}}", "spec.statements.top"},
		"raw texts":                     {policy + "  {selector: {}, engine: redis, statements: {text: Raw}}", `"Raw"`},
		"slow below zero":               {policy + "  {selector: {}, engine: redis, statements: {slowThreshold: -1s}}", "from 0s to 24h"},
		"slow for too long":             {policy + "  {selector: {}, engine: redis, statements: {slowThreshold: 25h}}", "from 0s to 24h"},
		"slow in words":                 {policy + "  {selector: {}, engine: redis, statements: {slowThreshold: soon}}", "spec.statements.slowThreshold"},
		"an unknown audit":              {policy + "  {selector: {}, engine: redis, statements: {audit: [everything]}}", `"everything"`},
		"an audit twice":                {policy + "  {selector: {}, engine: redis, statements: {audit: [ddl, ddl]}}", "Duplicate"},
		"too many affected":             {policy + "  {selector: {}, engine: redis, chaos: {maxAffected: 3000000000}}", "spec.chaos.maxAffected"},
		"a limit in words":              {policy + "  {selector: {}, engine: redis, chaos: {maxDuration: 10 minutes}}", "spec.chaos.maxDuration"},
		"a limit without unit":          {policy + "  {selector: {}, engine: redis, chaos: {maxDuration: 10}}", "spec.chaos.maxDuration"},
		"a limit below zero":            {policy + "  {selector: {}, engine: redis, chaos: {maxDuration: -10m}}", "from 1s to 24h"},
		"a limit too long":              {policy + "  {selector: {}, engine: redis, chaos: {maxDuration: 25h}}", "from 1s to 24h"},
		"a jitter in words":             {experiment + "  {target: {policy: p}, fault: {networkDelay: {delay: 1ms, jitter: some}}, duration: 5s}", "networkDelay.jitter"},
		"a jitter below zero":           {experiment + "  {target: {policy: p}, fault: {networkDelay: {delay: 1ms, jitter: -1ms}}, duration: 5s}", "from 0s to 1m"},
		"a jitter too long":             {experiment + "  {target: {policy: p}, fault: {networkDelay: {delay: 1ms, jitter: 2m}}, duration: 5s}", "from 0s to 1m"},
		"a count beyond all":            {experiment + "  {target: {policy: p, count: 3000000000}, fault: {freeze: {}}, duration: 5s}", "spec.target.count"},
		"a share with half an exponent": {experiment + "  {target: {policy: p}, fault: {networkLoss: {percent: 1e1.5}}, duration: 5s}", "whole number below 100"},
		"an exponent too large":         {experiment + "  {target: {policy: p}, fault: {ioError: {percent: '1e999'}}, duration: 5s}", "percent"},
		"a timeout in words":            {resize + "  {target: {policy: p}, resources: {cpu: 1}, timeout: 2 minutes}", "spec.timeout"},
		"a timeout of nothing":          {resize + "  {target: {policy: p}, resources: {cpu: 1}, timeout: 0s}", "from 1s to 24h"},
		"a timeout below zero":          {resize + "  {target: {policy: p}, resources: {cpu: 1}, timeout: -1m}", "from 1s to 24h"},
		"a timeout too long":            {resize + "  {target: {policy: p}, resources: {cpu: 1}, timeout: 48h}", "from 1s to 24h"},
		"a size with half an exponent":  {resize + "  {target: {policy: p}, resources: {cpu: 1e1.5}}", "the exponent of cpu"},
		"a size beyond all":             {resize + "  {target: {policy: p}, resources: {memory: '1e+999'}}", "the exponent of memory"},
		"no size":                       {resize + "  {target: {policy: p}, resources: {}}", "give cpu, memory or both"},
		"an unknown size":               {resize + "  {target: {policy: p}, resources: {disk: 1Gi}}", "disk"},
		"words as a size":               {resize + "  {target: {policy: p}, resources: {cpu: lots}}", "spec.resources.cpu"},
	} {
		t.Run(name, func(t *testing.T) {
			var o object
			require.NoError(t, yaml.Unmarshal([]byte(row.text), &o))
			_, errs := all[o.text("kind")].judge(t, row.text, nil)
			require.NotEmpty(t, errs)
			require.Contains(t, errs.ToAggregate().Error(), row.says)
		})
	}
}

// What the bounds of TestBadObjectsAreNotTaken must not shut out.
func TestOrdinaryObjectsAreTaken(t *testing.T) {
	all := definitions(t)
	for kind, specs := range map[string][]string{
		"DatabasePolicy": {
			"{selector: {}, engine: redis, container: '', chaos: {maxDuration: 24h, maxAffected: 1000000}}",
			"{selector: {}, engine: redis, container: redis-0, chaos: {maxDuration: 1s, maxAffected: 100%}}",
			"{selector: {}, engine: percona, probe: {secretRef: {name: a.b-c}, write: {mode: Replicated, period: 1h}}}",
			"{selector: {}, engine: valkey, probe: {secretRef: {name: a}, read: {period: 1h}}}",
			"{selector: {}, engine: mysql, probe: {secretRef: {name: a}, database: " + strings.Repeat("库", 21) + "}}",
			"{selector: {}, engine: mysql, probe: {secretRef: {name: a}, database: 'with a space'}}",
			"{selector: {}, engine: mysql, statements: {top: 0, text: 'Off', slowThreshold: 0s, audit: [session, read, write, ddl, all]}}",
			"{selector: {}, engine: mysql, statements: {top: 500, slowThreshold: 24h}}",
		},
		"ChaosExperiment": {
			"{target: {policy: p}, fault: {networkDelay: {delay: 1m, jitter: 1m}}, duration: 24h}",
			"{target: {policy: p}, fault: {networkDelay: {delay: 1us, jitter: 0s}}, duration: 1s}",
			"{target: {policy: p}, fault: {networkLoss: {percent: 500m}}, duration: 1s}",
			"{target: {policy: p}, fault: {ioError: {percent: 50}}, duration: 1s}",
		},
		"InstanceResize": {
			"{target: {policy: p}, resources: {cpu: 1500m, memory: 4Gi}, timeout: 1s}",
			"{target: {policy: p}, resources: {cpu: 2, memory: '129e6'}, timeout: 24h}",
			"{target: {policy: p}, resources: {memory: 1E}}",
		},
	} {
		for _, spec := range specs {
			_, errs := all[kind].judge(t, "apiVersion: mooring.dev/v1alpha1\nkind: "+kind+"\nmetadata: {name: x}\nspec:\n  "+spec, nil)
			require.Empty(t, errs, spec)
		}
	}
}

// A probe that is taken and never made would look like a database that is well.
func TestProbesAreForTheEnginesThatAgentsProbe(t *testing.T) {
	policy := definitions(t)["DatabasePolicy"]
	for _, f := range state.Engines() {
		_, errs := policy.judge(t, "apiVersion: mooring.dev/v1alpha1\nkind: DatabasePolicy\nmetadata: {name: x}\nspec:\n"+
			"  {selector: {}, engine: "+string(f.Engine)+", probe: {secretRef: {name: a}}}", nil)
		if active.Able(f.Engine) {
			require.Empty(t, errs, f.Engine)
		} else {
			require.ErrorContains(t, errs.ToAggregate(), "probe is for", f.Engine)
		}
	}
}

func TestWhatWasAskedForStays(t *testing.T) {
	all := definitions(t)
	example := read(t, "examples/slow-replica.yaml")
	was, errs := all["ChaosExperiment"].judge(t, example, nil)
	require.Empty(t, errs)
	aborted := strings.Replace(example, "duration: 20s", "duration: 20s\n  abort: true", 1)
	abortedObject, errs := all["ChaosExperiment"].judge(t, aborted, was)
	require.Empty(t, errs, "abort can be set")
	_, errs = all["ChaosExperiment"].judge(t, example, abortedObject)
	require.NotEmpty(t, errs, "abort can be taken back")
	for old, changed := range map[string]string{
		"duration: 20s": "duration: 30s", "role: replica": "role: primary", "delay: 300ms": "delay: 301ms",
		"    jitter: 20ms": "", "policy: orders": "policy: ledger", "spec:": "spec:\n  dryRun: true", "  target:": "  onAgentRestart: Resume\n  target:",
	} {
		require.Contains(t, example, old)
		_, errs = all["ChaosExperiment"].judge(t, strings.Replace(example, old, changed, 1), was)
		require.NotEmpty(t, errs, "%q could be made %q", old, changed)
	}
	example = read(t, "examples/instanceresize.yaml")
	was, errs = all["InstanceResize"].judge(t, example, nil)
	require.Empty(t, errs)
	_, errs = all["InstanceResize"].judge(t, strings.Replace(example, "2Gi", "3Gi", 1), was)
	require.NotEmpty(t, errs, "a resize can be changed")
}

func TestDefaultsAreFilledIn(t *testing.T) {
	o, errs := definitions(t)["ChaosExperiment"].judge(t, read(t, "examples/slow-replica.yaml"), nil)
	require.Empty(t, errs)
	require.Equal(t, "Recover", object(o).text("spec", "onControlLoss"))
	require.Equal(t, "End", object(o).text("spec", "onAgentRestart"))
	require.EqualValues(t, 1, object(o).at("spec", "target", "count"))
}
