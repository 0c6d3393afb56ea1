package v1alpha1

import (
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Conditions of an InstanceResize.
const (
	// ResizeAccepted is true when the request can be carried out.
	ResizeAccepted = "Accepted"
	// ResizeComplete is true when every target has the new size and its agent has
	// verified it, false with a reason while it goes on or when it ended otherwise.
	ResizeComplete = "Complete"
)

// ResizePhase is where a resize stands.
// +kubebuilder:validation:Enum=Pending;Running;Complete;DryRun;RolledBack;Failed;Refused
type ResizePhase string

// Phases of a resize.
const (
	ResizePending ResizePhase = "Pending"
	ResizeRunning ResizePhase = "Running"
	ResizeDone    ResizePhase = "Complete"
	// ResizeDryRun means checked for every target, as asked, and nothing changed.
	ResizeDryRun     ResizePhase = "DryRun"
	ResizeRolledBack ResizePhase = "RolledBack"
	ResizeFailed     ResizePhase = "Failed"
	ResizeRefused    ResizePhase = "Refused"
)

// InstanceResize changes the CPU and memory of running instances, one at a time,
// replicas before the primary, without a restart. It is carried out once.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=irz,categories=mooring
// +kubebuilder:printcolumn:name="Policy",type=string,JSONPath=`.spec.target.policy`
// +kubebuilder:printcolumn:name="CPU",type=string,JSONPath=`.spec.resources.cpu`
// +kubebuilder:printcolumn:name="Memory",type=string,JSONPath=`.spec.resources.memory`
// +kubebuilder:printcolumn:name="Phase",type=string,JSONPath=`.status.phase`
// +kubebuilder:printcolumn:name="Done",type=string,JSONPath=`.status.progress`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type InstanceResize struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +required
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="the spec cannot be changed; delete the resize and create another"
	Spec InstanceResizeSpec `json:"spec"`
	// +optional
	Status InstanceResizeStatus `json:"status,omitempty"`
}

// InstanceResizeSpec says which instances get which size.
type InstanceResizeSpec struct {
	// target says which instances.
	// +required
	Target ResizeTarget `json:"target"`
	// resources is the new size.
	// +required
	// +kubebuilder:validation:XValidation:rule="!has(self.cpu) || type(self.cpu) == int || !self.cpu.matches('[eE][+-]?([0-9]*[.]|[0-9]{3})')",message="the exponent of cpu must be a whole number below 100"
	// +kubebuilder:validation:XValidation:rule="!has(self.memory) || type(self.memory) == int || !self.memory.matches('[eE][+-]?([0-9]*[.]|[0-9]{3})')",message="the exponent of memory must be a whole number below 100"
	Resources ResizeResources `json:"resources"`
	// timeout is how long one instance may take before it is taken back.
	// +optional
	// +kubebuilder:default="2m"
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s') && duration(self) <= duration('24h')",message="must be from 1s to 24h"
	Timeout Duration `json:"timeout,omitempty"`
	// dryRun has everything checked and planned and nothing changed.
	// +optional
	DryRun bool `json:"dryRun,omitempty"`
}

// ResizeTarget selects instances of one policy.
type ResizeTarget struct {
	// policy is the DatabasePolicy of the same namespace whose instances these are.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Policy string `json:"policy"`
	// cluster narrows them to one database cluster.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Cluster string `json:"cluster,omitempty"`
	// role narrows them to a role.
	// +optional
	Role Role `json:"role,omitempty"`
	// pods narrows them to these pods.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=128
	// +kubebuilder:validation:items:Pattern=`^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`
	// +kubebuilder:validation:items:MaxLength=253
	Pods []string `json:"pods,omitempty"`
}

// ResizeResources is a size. Requests follow the limits: what was equal stays
// equal, so that the pod keeps its quality of service.
// +kubebuilder:validation:XValidation:rule="has(self.cpu) || has(self.memory)",message="give cpu, memory or both"
type ResizeResources struct {
	// cpu is the new CPU limit.
	// +optional
	CPU *resource.Quantity `json:"cpu,omitempty"`
	// memory is the new memory limit.
	// +optional
	Memory *resource.Quantity `json:"memory,omitempty"`
}

// InstanceResizeStatus is how far it came.
type InstanceResizeStatus struct {
	// observedGeneration is the generation of the spec this status is about.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// phase is where the resize stands.
	// +optional
	Phase ResizePhase `json:"phase,omitempty"`
	// progress is how many targets are done, of how many.
	// +optional
	Progress string `json:"progress,omitempty"`
	// targets are the instances, in the order in which they are resized.
	// +optional
	// +listType=map
	// +listMapKey=pod
	// +kubebuilder:validation:MaxItems=128
	Targets []ResizeTargetStatus `json:"targets,omitempty"`
	// conditions are Accepted and Complete.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=8
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// ResizeState is where one target stands.
// +kubebuilder:validation:Enum=Pending;Resizing;Verified;RollingBack;RolledBack;Failed
type ResizeState string

// States of one target.
const (
	TargetPending     ResizeState = "Pending"
	TargetResizing    ResizeState = "Resizing"
	TargetVerified    ResizeState = "Verified"
	TargetRollingBack ResizeState = "RollingBack"
	TargetRolledBack  ResizeState = "RolledBack"
	TargetFailed      ResizeState = "Failed"
)

// ResizeTargetStatus is one instance.
type ResizeTargetStatus struct {
	// pod is its name.
	Pod string `json:"pod"`
	// uid is the pod's, so that a pod made again under the name is not taken for it.
	// +optional
	UID string `json:"uid,omitempty"`
	// container whose limits change.
	// +optional
	Container string `json:"container,omitempty"`
	// node it runs on.
	// +optional
	Node string `json:"node,omitempty"`
	// role it had when its turn came.
	// +optional
	Role string `json:"role,omitempty"`
	// state is where it stands.
	State ResizeState `json:"state"`
	// from is the size it had.
	// +optional
	From *ResizeResources `json:"from,omitempty"`
	// method says who wrote the limits: kubelet or agent.
	// +optional
	Method string `json:"method,omitempty"`
	// restarts is how many times the container had restarted when its turn came.
	// +optional
	Restarts int32 `json:"restarts,omitempty"`
	// startedAt is when its turn came.
	// +optional
	StartedAt *metav1.MicroTime `json:"startedAt,omitempty"`
	// finishedAt is when it was verified or given up.
	// +optional
	FinishedAt *metav1.MicroTime `json:"finishedAt,omitempty"`
	// message says what was read back, or what is in the way.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Message string `json:"message,omitempty"`
}

// InstanceResizeList is a list of resizes.
//
// +kubebuilder:object:root=true
type InstanceResizeList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []InstanceResize `json:"items"`
}
