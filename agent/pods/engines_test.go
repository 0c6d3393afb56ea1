package pods

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/mooring-dev/mooring/agent/state"
)

func TestTheTablesNameTheSameEngines(t *testing.T) {
	var all []state.Engine
	for _, f := range state.Engines() {
		all = append(all, f.Engine)
	}
	require.Equal(t, all, Engines())
	crd, err := os.ReadFile("../../controller/v1alpha1/databasepolicy.go")
	require.NoError(t, err)
	_, enum, ok := strings.Cut(string(crd), "Enum=")
	require.True(t, ok)
	enum, _, _ = strings.Cut(enum, "\n")
	require.Equal(t, strings.ReplaceAll(engineNames(), ", ", ";"), enum, "the custom resource accepts others than the agent")
}

func TestTheSupportTableSaysWhatTheCodeDoes(t *testing.T) {
	doc, err := os.ReadFile("doc.go")
	require.NoError(t, err)
	for _, f := range state.Engines() {
		e, ok := engineNamed(f.Engine)
		require.True(t, ok)
		_, row, ok := strings.Cut(string(doc), "//\t"+string(f.Engine)+" ")
		require.True(t, ok, "%s has no row", f.Engine)
		row, _, ok = strings.Cut(row, "certified")
		require.True(t, ok)
		require.Equal(t, f.Support == state.Compatible, strings.HasSuffix(row, "protocol-compatible, not "), f.Engine)
		for _, name := range e.executables {
			require.Contains(t, row, name)
		}
		require.Equal(t, len(e.declared) > 0, strings.Contains(row, "declared"), f.Engine)
	}
}

func TestAnExecutableMeansOneEngine(t *testing.T) {
	owner := map[string]state.Engine{}
	for _, e := range engines() {
		for _, name := range e.executables {
			require.NotContains(t, owner, name)
			owner[name] = e.name
		}
	}
	for _, e := range engines() {
		require.NotEmpty(t, slices.Concat(e.executables, e.declared), e.name)
		for _, name := range e.declared {
			require.Contains(t, owner, name, "%s: no scan would find it", e.name)
			require.NotEqual(t, e.name, owner[name])
		}
	}
}

// Those that share an executable are what they are declared to be, and without
// a declaration what the executable means.
func TestADeclarationTellsRelativesApart(t *testing.T) {
	tests := []struct {
		executable string
		undeclared state.Engine
		declared   []state.Engine
		refused    []state.Engine
	}{
		{"/usr/sbin/mysqld", state.MySQL,
			[]state.Engine{state.MySQL, state.MariaDB, state.Percona, state.GoldenDB, state.TDSQL},
			[]state.Engine{state.TiDB, state.OceanBase, state.PostgreSQL}},
		{"/data/tdengine/bin/postgres", state.PostgreSQL,
			[]state.Engine{state.PostgreSQL, state.TDSQLPG}, []state.Engine{state.OpenGauss, state.KingbaseES}},
		{"/usr/bin/redis-server", state.Redis,
			[]state.Engine{state.Redis, state.Valkey}, []state.Engine{state.MongoDB}},
		{"/usr/bin/valkey-server", state.Valkey, []state.Engine{state.Valkey}, []state.Engine{state.Redis}},
		{"/opt/gaussdb/bin/gaussdb", state.OpenGauss, []state.Engine{state.OpenGauss}, []state.Engine{state.PostgreSQL}},
		{"/opt/Kingbase/ES/V8/Server/bin/kingbase", state.KingbaseES, []state.Engine{state.KingbaseES}, []state.Engine{state.PostgreSQL}},
		{"/home/admin/oceanbase/bin/observer", state.OceanBase, []state.Engine{state.OceanBase}, []state.Engine{state.MySQL}},
		{"/usr/bin/mongod", state.MongoDB, []state.Engine{state.MongoDB}, []state.Engine{state.FerretDB}},
	}
	for _, tt := range tests {
		t.Run(tt.executable, func(t *testing.T) {
			p := postgres(100, 1, groupOf(0), 5000)
			p.exe = tt.executable
			require.Equal(t, tt.undeclared, only(t, instances(t, newFakeNode(t, "v2").add(p))).Engine)
			for _, engine := range tt.declared {
				pod := podWith(nil, map[string]string{engineAnnotation: string(engine)}, "db")
				require.Equal(t, engine, only(t, scanPods(t, newFakeNode(t, "v2").add(p), pod)).Engine)

				k, _ := start(t, newFakeNode(t, "v2").add(p).options(), podWith(nil, nil, "db"))
				k.Declare([]state.Declared{ledger(func(d *state.Declared) { d.Engine = engine })})
				require.Equal(t, engine, only(t, find(t, k)).Engine)
			}
			for _, engine := range tt.refused {
				r := scanPods(t, newFakeNode(t, "v2").add(p), podWith(nil, map[string]string{engineAnnotation: string(engine)}, "db"))
				require.Empty(t, r.Instances)
				require.Contains(t, r.Unresolved[0], "no container in which a "+string(engine)+" server listens")
			}
		})
	}
}
