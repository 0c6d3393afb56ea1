package cgroup

import (
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/mooring-dev/mooring/agent/change"
)

// tree is a cgroup file system made of plain files, for tests without
// privilege: contents by path below its root.
type tree map[string]string

// tree2 is a unified hierarchy with a pod of one container.
func tree2() tree {
	t := tree{
		"cgroup.controllers":     "cpuset cpu io memory hugetlb pids\n",
		"cgroup.subtree_control": "cpuset cpu memory\n",
		"cpuset.cpus.effective":  "0-7\n",
		"cpuset.mems.effective":  "0-1\n",
		"cgroup.procs":           "1\n",
	}
	for _, dir := range []string{"pod", "pod/db"} {
		for file, content := range map[string]string{
			"cgroup.procs":          "",
			"cgroup.events":         "populated 1\nfrozen 0\n",
			"cgroup.freeze":         "0\n",
			"cpu.max":               "max 100000\n",
			"cpu.weight":            "100\n",
			"cpu.stat":              "usage_usec 5000000\nuser_usec 4000000\nsystem_usec 1000000\nnr_periods 3\nnr_throttled 1\nthrottled_usec 250000\n",
			"memory.max":            "max\n",
			"memory.high":           "max\n",
			"memory.current":        "1073741824\n",
			"memory.events":         "low 0\nhigh 0\nmax 12\noom 2\noom_kill 1\n",
			"memory.stat":           "anon 419430400\nfile 524288000\nkernel 20971520\nkernel_stack 1048576\npagetables 2097152\nsock 4096\nshmem 104857600\nslab_reclaimable 10485760\nslab_unreclaimable 5242880\n",
			"memory.numa_stat":      "anon N0=419430400 N1=0\nfile N0=104857600 N1=419430400\nshmem N0=104857600 N1=0\n",
			"cpuset.cpus":           "\n",
			"cpuset.mems":           "\n",
			"cpuset.cpus.effective": "0-7\n",
			"cpuset.mems.effective": "0-1\n",
		} {
			t[dir+"/"+file] = content
		}
	}
	t["pod/db/cgroup.procs"] = "101\n100\n"
	return t
}

// tree1 is a version 1 mount with the same pod in every hierarchy.
func tree1() tree {
	const none = "9223372036854771712\n"
	t := tree{}
	for controller, files := range map[string]map[string]string{
		"cpu": {
			"cpu.cfs_quota_us": "-1\n", "cpu.cfs_period_us": "100000\n",
			"cpu.stat": "nr_periods 3\nnr_throttled 1\nthrottled_time 250000000\n",
		},
		"cpuacct": {
			"cpuacct.usage": "5000000000\n", "cpuacct.usage_percpu": "5000000000 0\n", "cpuacct.stat": "user 400\nsystem 100\n",
		},
		"cpuset": {
			"cpuset.cpus": "0-7\n", "cpuset.mems": "0-1\n", "cpuset.memory_migrate": "0\n",
			"cpuset.effective_cpus": "0-7\n", "cpuset.effective_mems": "0-1\n",
		},
		"memory": {
			"memory.limit_in_bytes": none, "memory.usage_in_bytes": "1073741824\n",
			"memory.max_usage_in_bytes": "1073741824\n", "memory.failcnt": "0\n",
			"memory.memsw.limit_in_bytes": none, "memory.kmem.usage_in_bytes": "20971520\n",
			"memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n",
			"memory.stat":        "rss 1\ntotal_rss 419430400\ntotal_shmem 104857600\ntotal_cache 524288000\n",
			"memory.numa_stat":   "total=3 N0=1 N1=2\nhierarchical_total=30 N0=10 N1=20\n",
		},
		"freezer": {"freezer.state": "THAWED\n"},
	} {
		for _, dir := range []string{"", "/pod", "/pod/db"} {
			for file, content := range files {
				t[controller+dir+"/"+file] = content
			}
			t[controller+dir+"/cgroup.procs"] = ""
		}
		t[controller+"/pod/db/cgroup.procs"] = "101\n100\n"
	}
	delete(t, "freezer/freezer.state") // the root cannot be frozen
	return t
}

// make writes the tree below a new directory.
func (tr tree) make(t require.TestingT, root string) string {
	for name, content := range tr {
		file := filepath.Join(root, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
		require.NoError(t, os.WriteFile(file, []byte(content), 0o644))
	}
	return root
}

// open opens the pod's container in a tree made of the given version.
func open(t require.TestingT, root string, version int) *Group {
	f, err := New(root)
	require.NoError(t, err)
	require.Equal(t, version, f.Version())
	paths := map[string]string{"": "/pod/db"}
	if version == 1 {
		paths = map[string]string{"cpu": "/pod/db", "cpuset": "/pod/db", "memory": "/pod/db", "freezer": "/pod/db"}
	}
	g, err := f.Open(paths)
	require.NoError(t, err)
	return g
}

// snapshot reads the whole tree back.
func snapshot(t require.TestingT, root string) tree {
	now := tree{}
	require.NoError(t, filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(name)
		rel, _ := filepath.Rel(root, name)
		now[rel] = string(content)
		return err
	}))
	return now
}

// kernel writes to plain files as the kernel keeps control files: whole
// values, rounded and spelt its way, with its refusals between versions,
// parents and children.
func kernel(fd int, file, value string) error {
	dir, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	if err != nil {
		return err
	}
	dir = filepath.Dir(dir)
	kept, err := kernelValue(dir, file, value)
	if err != nil {
		return err
	}
	if err := unix.Ftruncate(fd, 0); err != nil {
		return err
	}
	_, err = unix.Pwrite(fd, []byte(kept+"\n"), 0)
	return err
}

func kernelValue(dir, file, value string) (string, error) {
	read := func(d, name string) string { v, _ := readValue(filepath.Join(d, name)); return v }
	switch file {
	case "memory.max", "memory.high", "memory.limit_in_bytes", "memory.memsw.limit_in_bytes":
		n, err := parseBytes(value)
		if err != nil {
			return "", unix.EINVAL
		}
		if n == math.MaxInt64 {
			if strings.HasSuffix(file, "_in_bytes") {
				return "9223372036854771712", nil
			}
			return "max", nil
		}
		limit, _ := parseBytes(read(dir, "memory.limit_in_bytes"))
		both, _ := parseBytes(read(dir, "memory.memsw.limit_in_bytes"))
		if file == "memory.limit_in_bytes" && n > both || file == "memory.memsw.limit_in_bytes" && n < limit {
			return "", unix.EINVAL
		}
		return strconv.FormatInt(n/4096*4096, 10), nil
	case "cpu.cfs_quota_us":
		n, _ := strconv.ParseInt(value, 10, 64)
		parent, _ := strconv.ParseInt(read(filepath.Dir(dir), file), 10, 64)
		child, _ := strconv.ParseInt(read(filepath.Join(dir, "db"), file), 10, 64)
		if n > 0 && (parent > 0 && n > parent || child > n) {
			return "", unix.EINVAL
		}
	case "cpuset.cpus", "cpuset.mems":
		if value == "" && read(dir, "cgroup.procs") != "" {
			return "", unix.ENOSPC
		}
		effective := value
		if value == "" {
			effective = read(filepath.Dir(dir), file+".effective")
		}
		for _, name := range []string{file + ".effective", strings.Replace(file, ".", ".effective_", 1)} {
			if isFile(filepath.Join(dir, name)) {
				return value, os.WriteFile(filepath.Join(dir, name), []byte(effective+"\n"), 0o644)
			}
		}
	case "cgroup.freeze":
		return value, os.WriteFile(filepath.Join(dir, "cgroup.events"), []byte("populated 1\nfrozen "+value+"\n"), 0o644)
	}
	return value, nil
}

// plain turns planned file writes into changes.
func plain(files []change.FileChange) []change.Change {
	changes := make([]change.Change, len(files))
	for i := range files {
		changes[i] = change.Change{Class: change.File, File: &files[i]}
	}
	return changes
}

// listed shows a plan as "file=value", with the directory for the parent.
func listed(files []change.FileChange) []string {
	var l []string
	for _, f := range files {
		name := filepath.Base(f.Path)
		if filepath.Base(filepath.Dir(f.Path)) == "pod" {
			name = "pod/" + name
		}
		l = append(l, fmt.Sprintf("%s=%s", name, f.New))
	}
	return l
}
