package pods

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/mooring-dev/mooring/agent/state"
)

const podUID = "8ff3a2b1-0c4d-4e5f-9a6b-7c8d9e0f1a2b"
const podUIDSlice = "8ff3a2b1_0c4d_4e5f_9a6b_7c8d9e0f1a2b"

// cgroupForm is a place of a container and what it follows from.
type cgroupForm struct {
	name, runtime string
	class         corev1.PodQOSClass
	path          string
	roots         []string
}

func cgroupForms() []cgroupForm {
	g, b, e := corev1.PodQOSGuaranteed, corev1.PodQOSBurstable, corev1.PodQOSBestEffort
	pod, slice, kubelet := "pod"+podUID, "pod"+podUIDSlice+".slice", []string{"/kubelet"}
	return []cgroupForm{
		{"cgroupfs guaranteed", "containerd", g, "/kubepods/" + pod + "/" + hexID, nil},
		{"cgroupfs burstable", "containerd", b, "/kubepods/burstable/" + pod + "/" + hexID, nil},
		{"cgroupfs best effort", "docker", e, "/kubepods/besteffort/" + pod + "/" + hexID, nil},
		{"cgroupfs, class not set yet", "containerd", "", "/kubepods/besteffort/" + pod + "/" + hexID, nil},
		{"cgroupfs CRI-O", "cri-o", b, "/kubepods/burstable/" + pod + "/crio-" + hexID, nil},
		{"cgroupfs below a kubelet root", "containerd", b, "/kubelet/kubepods/burstable/" + pod + "/" + hexID, kubelet},
		{"systemd guaranteed", "containerd", g, "/kubepods.slice/kubepods-" + slice + "/cri-containerd-" + hexID + ".scope", nil},
		{"systemd burstable", "containerd", b, "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-" + slice + "/cri-containerd-" + hexID + ".scope", nil},
		{"systemd best effort", "containerd", e, "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-" + slice + "/cri-containerd-" + hexID + ".scope", nil},
		{"systemd CRI-O", "cri-o", b, "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-" + slice + "/crio-" + hexID + ".scope", nil},
		{"systemd docker", "docker", b, "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-" + slice + "/docker-" + hexID + ".scope", nil},
		{"systemd below a kubelet root", "containerd", b, "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-" + slice + "/cri-containerd-" + hexID + ".scope", kubelet},
		{"systemd below a node container", "containerd", g, "/docker/node/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-" + slice + "/cri-containerd-" + hexID + ".scope", []string{"/docker/node/kubelet"}},
		{"systemd below a plain directory", "containerd", g, "/node/kubepods.slice/kubepods-" + slice + "/cri-containerd-" + hexID + ".scope", []string{"node/"}},
	}
}

func TestEveryPlaceOfAContainerIsTried(t *testing.T) {
	for _, form := range cgroupForms() {
		t.Run(form.name, func(t *testing.T) {
			pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: podUID}, Status: corev1.PodStatus{QOSClass: form.class}}
			paths, err := containerCgroups(pod, form.runtime+"://"+hexID, form.roots)
			require.NoError(t, err)
			require.Contains(t, paths, form.path)
		})
	}
}

func TestAStaticPodIsFoundByItsHash(t *testing.T) {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "mirror", Annotations: map[string]string{hashAnnotation: "abc", mirrorAnnotation: "abc"}}}
	paths, err := containerCgroups(pod, "containerd://"+hexID, nil)
	require.NoError(t, err)
	require.Contains(t, paths, "/kubepods/burstable/podabc/"+hexID)
	require.NotContains(t, paths, "/kubepods/burstable/podmirror/"+hexID)
}

func TestAHashOnAnOrdinaryPodMeansNothing(t *testing.T) {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: podUID, Annotations: map[string]string{hashAnnotation: "abc"}}}
	require.Equal(t, podUID, podCgroupUID(pod))
	_, ok := declarationOf(pod, map[string]state.Declared{"abc": {}})
	require.False(t, ok)
}

func TestNamesFromOutsideCannotLeadElsewhere(t *testing.T) {
	for _, id := range []string{"", "abc", "containerd://", "containerd://..", "containerd://a/b", "containerd://../../x"} {
		_, err := containerCgroups(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: podUID}}, id, nil)
		require.Error(t, err, id)
	}
	for _, uid := range []types.UID{"", "..", "a/b"} {
		_, err := containerCgroups(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{UID: uid}}, "containerd://"+hexID, nil)
		require.Error(t, err, uid)
	}
}
