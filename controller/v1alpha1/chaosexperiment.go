package v1alpha1

import (
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Conditions of a ChaosExperiment.
const (
	// TargetsResolved is true when every target is one known instance.
	TargetsResolved = "TargetsResolved"
	// FaultActive is true while the fault is in force on every target.
	FaultActive = "Active"
	// EffectObserved is true once the kernel applied the fault on every target.
	EffectObserved = "EffectObserved"
	// RecoveryVerified is true when every target reads as it did before.
	RecoveryVerified = "RecoveryVerified"
)

// ExperimentPhase is where an experiment stands.
// +kubebuilder:validation:Enum=Pending;Active;Recovering;Recovered;Aborted;DryRun;Refused;Failed
type ExperimentPhase string

// Phases of an experiment.
const (
	ExperimentPending    ExperimentPhase = "Pending"
	ExperimentActive     ExperimentPhase = "Active"
	ExperimentRecovering ExperimentPhase = "Recovering"
	// ExperimentRecovered means over at its deadline, or earlier as its spec says,
	// with nothing left behind.
	ExperimentRecovered ExperimentPhase = "Recovered"
	// ExperimentAborted means ended by spec.abort or by deletion.
	ExperimentAborted ExperimentPhase = "Aborted"
	// ExperimentDryRun means checked and planned on every target, as asked, and
	// nothing broken.
	ExperimentDryRun ExperimentPhase = "DryRun"
	// ExperimentRefused means never begun, for the reason in the conditions.
	ExperimentRefused ExperimentPhase = "Refused"
	// ExperimentFailed means begun, and then not carried out as asked.
	ExperimentFailed ExperimentPhase = "Failed"
)

// ChaosExperiment breaks instances of one policy on purpose, for a while. It is
// carried out once, and it ends by itself also where controller, agent and API
// server are gone.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=chaos,categories=mooring
// +kubebuilder:printcolumn:name="Fault",type=string,JSONPath=`.status.fault`
// +kubebuilder:printcolumn:name="Policy",type=string,JSONPath=`.spec.target.policy`
// +kubebuilder:printcolumn:name="Duration",type=string,JSONPath=`.spec.duration`
// +kubebuilder:printcolumn:name="Phase",type=string,JSONPath=`.status.phase`
// +kubebuilder:printcolumn:name="Hits",type=integer,JSONPath=`.status.hits`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type ChaosExperiment struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +required
	// +kubebuilder:validation:XValidation:rule="self.target == oldSelf.target && self.fault == oldSelf.fault && self.duration == oldSelf.duration && self.onControlLoss == oldSelf.onControlLoss && self.onAgentRestart == oldSelf.onAgentRestart && (has(self.dryRun) && self.dryRun) == (has(oldSelf.dryRun) && oldSelf.dryRun)",message="the spec cannot be changed, except that abort can be set; delete the experiment and create another"
	// +kubebuilder:validation:XValidation:rule="!(has(oldSelf.abort) && oldSelf.abort) || (has(self.abort) && self.abort)",message="abort cannot be taken back"
	Spec ChaosExperimentSpec `json:"spec"`
	// +optional
	Status ChaosExperimentStatus `json:"status,omitempty"`
}

// ChaosExperimentSpec says what is broken, how, and for how long.
type ChaosExperimentSpec struct {
	// target says which instances.
	// +required
	Target ChaosTarget `json:"target"`
	// fault is what happens to them.
	// +required
	Fault Fault `json:"fault"`
	// duration is how long the fault lasts on each target.
	// +required
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s') && duration(self) <= duration('24h')",message="must be from 1s to 24h"
	Duration metav1.Duration `json:"duration"`
	// onControlLoss says what an agent does that no longer hears from the
	// controller: Recover ends the fault, ContinueUntilDeadline goes on.
	// +optional
	// +kubebuilder:default=Recover
	OnControlLoss OnControlLoss `json:"onControlLoss,omitempty"`
	// onAgentRestart says what becomes of the fault when its agent is restarted or
	// replaced, which ends it on the node: End leaves it ended, Resume has the new
	// agent start it again for the time that is left.
	// +optional
	// +kubebuilder:default=End
	OnAgentRestart OnAgentRestart `json:"onAgentRestart,omitempty"`
	// dryRun has everything checked and planned and nothing broken.
	// +optional
	DryRun bool `json:"dryRun,omitempty"`
	// abort ends the experiment now. It can be set at any time and not unset.
	// +optional
	Abort bool `json:"abort,omitempty"`
}

// OnControlLoss says what a fault does without its controller.
// +kubebuilder:validation:Enum=Recover;ContinueUntilDeadline
type OnControlLoss string

// What a fault does without its controller.
const (
	Recover               OnControlLoss = "Recover"
	ContinueUntilDeadline OnControlLoss = "ContinueUntilDeadline"
)

// OnAgentRestart says what becomes of a fault whose agent is replaced.
// +kubebuilder:validation:Enum=End;Resume
type OnAgentRestart string

// What becomes of a fault whose agent is replaced.
const (
	End    OnAgentRestart = "End"
	Resume OnAgentRestart = "Resume"
)

// ChaosTarget selects instances of one policy.
type ChaosTarget struct {
	// policy is the DatabasePolicy of the same namespace whose instances these are.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Policy string `json:"policy"`
	// selector narrows them by pod label.
	// +optional
	Selector *metav1.LabelSelector `json:"selector,omitempty"`
	// cluster narrows them to one database cluster.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Cluster string `json:"cluster,omitempty"`
	// role narrows them to the role they have at the moment the fault begins.
	// +optional
	Role Role `json:"role,omitempty"`
	// pods narrows them to these pods.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=128
	// +kubebuilder:validation:items:Pattern=`^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`
	// +kubebuilder:validation:items:MaxLength=253
	Pods []string `json:"pods,omitempty"`
	// count is how many of those that match are broken, as a number or a percentage
	// rounded down, at least one. Which ones is decided by the experiment's uid.
	// +optional
	// +kubebuilder:default=1
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:XValidation:rule="type(self) == int ? self >= 1 && self <= 1000000 : self.matches('^([1-9]|[1-9][0-9]|100)%$')",message="must be a number from 1 to 1000000 or a percentage such as 50%"
	Count *intstr.IntOrString `json:"count,omitempty"`
}

// Fault is exactly one kind of fault with its parameters.
// +kubebuilder:validation:MinProperties=1
// +kubebuilder:validation:MaxProperties=1
type Fault struct {
	// networkDelay delays every packet that the instance receives.
	// +optional
	NetworkDelay *NetworkDelay `json:"networkDelay,omitempty"`
	// networkLoss drops packets that the instance receives.
	// +optional
	NetworkLoss *NetworkLoss `json:"networkLoss,omitempty"`
	// ioError makes reads or writes of the data directory's file system fail.
	// +optional
	IOError *IOError `json:"ioError,omitempty"`
	// freeze stops every process of the instance.
	// +optional
	Freeze *Freeze `json:"freeze,omitempty"`
}

// NetworkDelay delays packets to the instance.
type NetworkDelay struct {
	// delay is the time added to every packet, from 1us to 1m.
	// +required
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1us') && duration(self) <= duration('1m')",message="must be from 1us to 1m"
	Delay metav1.Duration `json:"delay"`
	// jitter is how far the delay varies either way, at most the delay itself.
	// +optional
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('0s') && duration(self) <= duration('1m')",message="must be from 0s to 1m"
	Jitter *Duration `json:"jitter,omitempty"`
}

// NetworkLoss drops packets to the instance.
type NetworkLoss struct {
	// percent is the share of packets dropped, such as 10 or "0.5".
	// +required
	// +kubebuilder:validation:XValidation:rule="type(self) == int || !self.matches('[eE][+-]?([0-9]*[.]|[0-9]{3})')",message="the exponent must be a whole number below 100"
	Percent resource.Quantity `json:"percent"`
}

// IOOperations are the file operations that fail.
// +kubebuilder:validation:Enum=Read;Write;All
type IOOperations string

// File operations.
const (
	IORead  IOOperations = "Read"
	IOWrite IOOperations = "Write"
	IOAll   IOOperations = "All"
)

// IOError makes file operations fail with EIO.
type IOError struct {
	// operations says which fail.
	// +optional
	// +kubebuilder:default=All
	Operations IOOperations `json:"operations,omitempty"`
	// percent is the share of operations that fail, such as 50 or "0.5"; all of
	// them when it is not given.
	// +optional
	// +kubebuilder:validation:XValidation:rule="type(self) == int || !self.matches('[eE][+-]?([0-9]*[.]|[0-9]{3})')",message="the exponent must be a whole number below 100"
	Percent *resource.Quantity `json:"percent,omitempty"`
}

// Freeze has no parameters.
type Freeze struct{}

// ChaosExperimentStatus is what became of it.
type ChaosExperimentStatus struct {
	// observedGeneration is the generation of the spec this status is about.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// phase is where the experiment stands.
	// +optional
	Phase ExperimentPhase `json:"phase,omitempty"`
	// fault says in one line what is done, such as "net-delay delay=300ms".
	// +optional
	Fault string `json:"fault,omitempty"`
	// startedAt is when the first target's fault began.
	// +optional
	StartedAt *metav1.MicroTime `json:"startedAt,omitempty"`
	// deadline is when the fault is over in any case.
	// +optional
	Deadline *metav1.MicroTime `json:"deadline,omitempty"`
	// endedAt is when it was over on the last target.
	// +optional
	EndedAt *metav1.MicroTime `json:"endedAt,omitempty"`
	// hits is how often the kernel applied the fault, on all targets together.
	// +optional
	Hits int64 `json:"hits,omitempty"`
	// targets are the instances.
	// +optional
	// +listType=map
	// +listMapKey=pod
	// +kubebuilder:validation:MaxItems=128
	Targets []ChaosTargetStatus `json:"targets,omitempty"`
	// conditions are TargetsResolved, Active, EffectObserved and RecoveryVerified.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=8
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// ChaosState is where the fault on one target stands.
// +kubebuilder:validation:Enum=Pending;Active;Ended;Stuck;Failed
type ChaosState string

// States of the fault on one target.
const (
	ChaosPending ChaosState = "Pending"
	ChaosActive  ChaosState = "Active"
	ChaosEnded   ChaosState = "Ended"
	// ChaosStuck means that the undo failed and is tried again.
	ChaosStuck  ChaosState = "Stuck"
	ChaosFailed ChaosState = "Failed"
)

// ChaosTargetStatus is one target, with the evidence of what happened to it.
type ChaosTargetStatus struct {
	// pod is its name.
	Pod string `json:"pod"`
	// uid is the pod's.
	// +optional
	UID string `json:"uid,omitempty"`
	// node it runs on.
	// +optional
	Node string `json:"node,omitempty"`
	// instance is the name its agent has for it.
	// +optional
	Instance string `json:"instance,omitempty"`
	// cluster it belongs to.
	// +optional
	Cluster string `json:"cluster,omitempty"`
	// role it had when the fault began.
	// +optional
	Role string `json:"role,omitempty"`
	// state is where the fault stands.
	State ChaosState `json:"state"`
	// faultUID is the name its agent has for the fault.
	// +optional
	FaultUID string `json:"faultUID,omitempty"`
	// startedAt is when the fault began, by the agent's clock.
	// +optional
	StartedAt *metav1.MicroTime `json:"startedAt,omitempty"`
	// deadline is when it is over in any case.
	// +optional
	Deadline *metav1.MicroTime `json:"deadline,omitempty"`
	// endedAt is when it was over and verified, by the agent's clock.
	// +optional
	EndedAt *metav1.MicroTime `json:"endedAt,omitempty"`
	// reason is why it ended: deadline, stopped, lease, recovered and so on.
	// +optional
	Reason string `json:"reason,omitempty"`
	// hits is how often the kernel applied the fault.
	// +optional
	Hits int64 `json:"hits,omitempty"`
	// changes are what the fault changes on the node, a line each.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	Changes []string `json:"changes,omitempty"`
	// recovered says that everything reads as it did before the fault.
	// +optional
	Recovered bool `json:"recovered,omitempty"`
	// residue lists what still differs from before the fault; empty when nothing
	// does.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	Residue []string `json:"residue,omitempty"`
	// message says what is in the way.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Message string `json:"message,omitempty"`
}

// ChaosExperimentList is a list of experiments.
//
// +kubebuilder:object:root=true
type ChaosExperimentList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ChaosExperiment `json:"items"`
}
