package cgroup

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestNewFindsTheVersionThatHoldsCPUAndMemory(t *testing.T) {
	mount := func(dirs ...string) tree {
		tr := tree{}
		for _, d := range dirs {
			tr[d+"/cgroup.procs"] = ""
		}
		return tr
	}
	with := func(tr tree, file, content string) tree { tr[file] = content; return tr }
	for name, c := range map[string]struct {
		tree    tree
		version int
		mode    string
		err     string
	}{
		"unified":                        {tree: tree2(), version: 2, mode: "unified"},
		"version 1":                      {tree: tree1(), version: 1, mode: "legacy"},
		"hybrid":                         {tree: with(tree1(), "unified/cgroup.controllers", "\n"), version: 1, mode: "hybrid"},
		"hybrid with controllers in 2":   {tree: with(mount("systemd"), "unified/cgroup.controllers", "cpu memory\n"), version: 2, mode: "hybrid"},
		"cpu in 1 and memory in 2":       {tree: with(mount("cpu"), "unified/cgroup.controllers", "memory\n"), err: "not both in one version"},
		"cpu in 1 and memory nowhere":    {tree: mount("cpu"), err: "not both in one version"},
		"an empty directory":             {tree: tree{}, err: "no cgroup controllers"},
		"directories without a mount":    {tree: tree{"cpu/x": "", "memory/x": ""}, err: "no cgroup controllers"},
		"hybrid without any controllers": {tree: with(mount("systemd"), "unified/cgroup.controllers", "pids\n"), err: "not both in one version"},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := New(c.tree.make(t, t.TempDir()))
			if c.err != "" {
				require.ErrorContains(t, err, c.err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, c.version, f.Version())
			require.Equal(t, c.mode, f.Mode())
		})
	}
}

func TestOpenRefusesWhatIsNotOneCgroup(t *testing.T) {
	two, err := New(tree2().make(t, t.TempDir()))
	require.NoError(t, err)
	for path, want := range map[string]string{
		"/":            "holds everything on the node",
		"":             "not absolute and clean",
		"pod/db":       "not absolute and clean",
		"/pod/db/":     "not absolute and clean",
		"/pod/../pod":  "outside the agent's cgroup namespace",
		"/../pod":      "outside the agent's cgroup namespace",
		"/other":       "cgroup is gone",
		"/pod/cpu.max": "is not a directory",
	} {
		t.Run("the path "+path, func(t *testing.T) {
			_, err := two.Open(map[string]string{"": path})
			require.ErrorContains(t, err, want)
		})
	}
	_, err = two.Open(map[string]string{"memory": "/pod/db"})
	require.ErrorContains(t, err, "no path given")
	_, err = two.Open(map[string]string{"": "/other"})
	require.ErrorIs(t, err, ErrGone)

	one, err := New(tree1().make(t, t.TempDir()))
	require.NoError(t, err)
	_, err = one.Open(map[string]string{"memory": "/pod/db", "cpu": "/"})
	require.ErrorContains(t, err, "the path for cpu is \"/\"")
	_, err = one.Open(map[string]string{"cpu": "/pod/db"})
	require.ErrorContains(t, err, "no path for memory given")
}

func TestOpenIgnoresHierarchiesItDoesNotUse(t *testing.T) {
	f, err := New(tree1().make(t, t.TempDir()))
	require.NoError(t, err)
	_, err = f.Open(map[string]string{"cpu": "/pod/db", "memory": "/pod/db", "": "/x", "name=systemd": "/y", "devices": "/z"})
	require.NoError(t, err)
}

func TestAGroupThatWasMadeAgainIsGone(t *testing.T) {
	root := tree2().make(t, t.TempDir())
	g := open(t, root, 2)
	pids, err := g.Procs()
	require.NoError(t, err)
	require.Equal(t, []int{100, 101}, pids)
	require.Equal(t, "/pod/db", g.Path())

	// The old directory is kept so that its inode number is not used again.
	require.NoError(t, os.Rename(filepath.Join(root, "pod/db"), filepath.Join(root, "old")))
	_, err = g.Stat()
	require.ErrorIs(t, err, ErrGone)
	tree2().make(t, root)
	_, err = g.Stat()
	require.ErrorIs(t, err, ErrGone)
	_, err = g.Procs()
	require.ErrorIs(t, err, ErrGone)
	_, err = g.PlanPin("0", "0")
	require.ErrorIs(t, err, ErrGone)
}
