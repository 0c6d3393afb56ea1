package pods

import (
	"fmt"
	"path"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// containerCgroups returns every path at which the kubelet and the container
// runtime may have put a container of a pod, for both cgroup drivers and below
// each root. The forms are those of the kubelet's cgroup manager and of the
// runtimes' cgroupsPath; nothing is read.
func containerCgroups(pod *corev1.Pod, containerID string, roots []string) ([]string, error) {
	runtime, id, ok := strings.Cut(containerID, "://")
	if !ok || !isPathElement(id) {
		return nil, fmt.Errorf("container id %q is not runtime://id", containerID)
	}
	uid := podCgroupUID(pod)
	if !isPathElement(uid) {
		return nil, fmt.Errorf("pod uid %q cannot be part of a cgroup path", uid)
	}
	var out []string
	for _, root := range append([]string{"/"}, roots...) {
		for _, level := range qosLevels(pod.Status.QOSClass) {
			for _, dir := range podDirs(root, level, uid) {
				for _, leaf := range containerLeaves(runtime, id) {
					out = append(out, path.Join(dir, leaf))
				}
			}
		}
	}
	return out, nil
}

// podCgroupUID returns the uid in the path of a pod's cgroup, which for a static
// pod is not that of the pod object.
func podCgroupUID(pod *corev1.Pod) string {
	if uid, ok := staticUID(pod); ok {
		return uid
	}
	return string(pod.UID)
}

// staticUID returns the uid on its node of a static pod. The API server lets
// nobody add the mark of a mirror to a pod that exists, or change it.
func staticUID(pod *corev1.Pod) (string, bool) {
	if _, mirror := pod.Annotations[mirrorAnnotation]; !mirror {
		return "", false
	}
	hash, ok := pod.Annotations[hashAnnotation]
	return hash, ok
}

// InPod reports whether a cgroup is a pod's or the kubelet's, whoever found it.
func InPod(cgroup string) bool {
	for elem := range strings.SplitSeq(cgroup, "/") {
		if elem == "kubepods" || strings.HasSuffix(elem, "kubepods.slice") {
			return true
		}
	}
	return false
}

// isPathElement reports whether a name from outside is one path element and no
// more.
func isPathElement(name string) bool {
	return name != "" && name != "." && name != ".." && !strings.ContainsAny(name, "/\x00")
}

// qosLevels returns the cgroup levels of a quality-of-service class. Guaranteed
// pods have none. A pod whose class is not set yet may be at any of them.
func qosLevels(class corev1.PodQOSClass) []string {
	switch class {
	case corev1.PodQOSGuaranteed:
		return []string{""}
	case corev1.PodQOSBurstable:
		return []string{"burstable"}
	case corev1.PodQOSBestEffort:
		return []string{"besteffort"}
	}
	return []string{"", "burstable", "besteffort"}
}

// podDirs returns the forms of a pod's cgroup below a root.
func podDirs(root, level, uid string) []string {
	root = path.Clean("/" + root)
	// cgroupfs driver: /kubepods/burstable/pod<uid>.
	dirs := []string{path.Join(root, "kubepods", level, "pod"+uid)}
	// systemd driver: each slice carries the names of those above it, and a dash
	// in a name would make another slice, hence the underscores.
	names := []string{"kubepods"}
	if level != "" {
		names = append(names, level)
	}
	names = append(names, "pod"+strings.ReplaceAll(uid, "-", "_"))
	dirs = append(dirs, slicePath(root, names))
	if root != "/" {
		// A kubelet with a cgroup root of its own makes slices of that too:
		// /kubelet.slice/kubelet-kubepods.slice.
		parent, base := path.Split(root)
		names = append([]string{strings.TrimSuffix(base, ".slice")}, names...)
		dirs = append(dirs, slicePath(parent, names))
	}
	return dirs
}

// slicePath returns the directories systemd makes for nested slices.
func slicePath(dir string, names []string) string {
	for i := range names {
		dir = path.Join(dir, strings.Join(names[:i+1], "-")+".slice")
	}
	return dir
}

// containerLeaves returns the forms of a container's own cgroup. All runtimes
// use the bare id with the cgroupfs driver, CRI-O in some releases with its
// prefix.
func containerLeaves(runtime, id string) []string {
	leaves := []string{id}
	for _, r := range runtimePrefixes() {
		if r.runtime == runtime {
			leaves = append(leaves, r.prefix+id+".scope")
		}
	}
	if runtime == "cri-o" {
		leaves = append(leaves, "crio-"+id)
	}
	return leaves
}

// runtimePrefix is what a runtime puts before the id in the name of a scope.
type runtimePrefix struct{ runtime, prefix string }

func runtimePrefixes() []runtimePrefix {
	return []runtimePrefix{{"containerd", "cri-containerd-"}, {"cri-o", "crio-"}, {"docker", "docker-"}}
}

// idOfLeaf is the reverse of containerLeaves. The result has no runtime in front
// where the name does not tell it.
func idOfLeaf(leaf string) string {
	name := strings.TrimSuffix(leaf, ".scope")
	for _, r := range runtimePrefixes() {
		if id, ok := strings.CutPrefix(name, r.prefix); ok {
			return r.runtime + "://" + id
		}
	}
	return name
}
