package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Engine is a database engine, by the name the agent uses for it. Those of one
// executable, such as mysql, percona, goldendb and tdsql, are told apart by this
// declaration alone.
// +kubebuilder:validation:Enum=postgresql;opengauss;kingbase;tdsql-pg;mysql;mariadb;percona;tidb;oceanbase;goldendb;tdsql;redis;valkey;mongodb;ferretdb
type Engine string

// NUMAPolicy says where an instance's CPUs and memory are to be.
// +kubebuilder:validation:Enum=None;SingleNode
type NUMAPolicy string

// Placement policies.
const (
	// NUMANone leaves an instance where it is.
	NUMANone NUMAPolicy = "None"
	// NUMASingleNode confines an instance to one NUMA node.
	NUMASingleNode NUMAPolicy = "SingleNode"
)

// Conditions of a DatabasePolicy.
const (
	// PolicyAccepted is true when the policy can be followed.
	PolicyAccepted = "Accepted"
	// PolicyApplied is true when every matched pod is an instance with its agent,
	// and the agent goes by the policy as it is now.
	PolicyApplied = "Applied"
)

// DatabasePolicy declares pods of its namespace to be instances of one database
// engine, and says what may be done to them.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=dbp,categories=mooring
// +kubebuilder:printcolumn:name="Engine",type=string,JSONPath=`.spec.engine`
// +kubebuilder:printcolumn:name="Matched",type=integer,JSONPath=`.status.matched`
// +kubebuilder:printcolumn:name="Ready",type=integer,JSONPath=`.status.ready`
// +kubebuilder:printcolumn:name="Applied",type=string,JSONPath=`.status.conditions[?(@.type=="Applied")].status`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type DatabasePolicy struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +required
	Spec DatabasePolicySpec `json:"spec"`
	// +optional
	Status DatabasePolicyStatus `json:"status,omitempty"`
}

// DatabasePolicySpec says which pods, what they run, and what may be done.
//
// +kubebuilder:validation:XValidation:rule="!has(self.probe) || !has(self.probe.write) || self.probe.write.mode != 'Replicated' || self.engine in ['postgresql', 'mysql', 'mariadb', 'percona']",message="the heartbeat of probe.write is for postgresql, mysql, mariadb and percona"
// +kubebuilder:validation:XValidation:rule="!has(self.probe) || self.engine in ['postgresql', 'mysql', 'mariadb', 'percona', 'redis', 'valkey']",message="probe is for postgresql, mysql, mariadb, percona, redis and valkey"
type DatabasePolicySpec struct {
	// selector matches the pods, by label, in the policy's own namespace. An
	// empty selector matches nothing.
	// +required
	Selector metav1.LabelSelector `json:"selector"`
	// engine is what the pods run.
	// +required
	Engine Engine `json:"engine"`
	// container is the container that runs the server; where it is not given, it
	// is the one container in which a server of the engine listens.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^([a-z0-9]([-a-z0-9]*[a-z0-9])?)?$`
	Container string `json:"container,omitempty"`
	// clusterLabel is the key of the pod label whose value names the database
	// cluster an instance belongs to. Without it all matched pods are one cluster.
	// +optional
	// +kubebuilder:validation:MaxLength=317
	ClusterLabel string `json:"clusterLabel,omitempty"`
	// role says how to tell the primary from its replicas.
	// +optional
	Role *RoleSource `json:"role,omitempty"`
	// numa is where the instances' CPUs and memory are to be.
	// +optional
	// +kubebuilder:default=None
	NUMA NUMAPolicy `json:"numa,omitempty"`
	// statements says how the instances' statements are watched; without it the
	// agents' own flags decide.
	// +optional
	Statements *StatementsSpec `json:"statements,omitempty"`
	// chaos says what experiments may do to the instances; nothing without it.
	// +optional
	Chaos ChaosLimits `json:"chaos,omitempty"`
	// probe lets the agents log in to the instances and ask for their role and
	// replication delay; without it no agent ever logs in to a database. It is for
	// the engines postgresql, mysql, mariadb, percona, redis and valkey.
	// +optional
	Probe *ActiveProbe `json:"probe,omitempty"`
}

// ProbeWriteMode says whether a heartbeat is written.
// +kubebuilder:validation:Enum=Off;Replicated
type ProbeWriteMode string

// Whether a heartbeat is written.
const (
	// ProbeWriteOff writes nothing.
	ProbeWriteOff ProbeWriteMode = "Off"
	// ProbeWriteReplicated updates one row on the primary, which its replicas get.
	ProbeWriteReplicated ProbeWriteMode = "Replicated"
)

// ProbeTLSMode says how a login over TCP is protected.
// +kubebuilder:validation:Enum=Disable;VerifyCA
type ProbeTLSMode string

// How a login is protected.
const (
	// ProbeTLSDisable takes the server's unix socket, or TCP inside the pod.
	ProbeTLSDisable ProbeTLSMode = "Disable"
	// ProbeTLSVerifyCA takes TLS and a certificate that the secret's CA has signed.
	ProbeTLSVerifyCA ProbeTLSMode = "VerifyCA"
)

// ActiveProbe says how agents log in. What they find, and why they do not log in,
// becomes metrics and stands in the agents' own status (mooringctl instances); nothing
// acts upon it, and the controller does not read it.
type ActiveProbe struct {
	// secretRef names a secret of the policy's namespace with the keys username
	// and password, and ca.crt for tls VerifyCA. The agent needs a Role that lets
	// it get the secret of that name.
	// +required
	SecretRef SecretReference `json:"secretRef"`
	// read is how often role and replication delay are asked for.
	// +optional
	// +kubebuilder:default={}
	Read ProbeRead `json:"read,omitempty"`
	// write is whether a heartbeat row is written on the primary.
	// +optional
	// +kubebuilder:default={}
	Write ProbeWrite `json:"write,omitempty"`
	// database is the one to log in to, a name of at most 63 bytes; the engine's own
	// where it is not given.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[^\x00-\x1f\x7f]*$`
	// +kubebuilder:validation:XValidation:rule="size(bytes(self)) <= 63",message="must be at most 63 bytes long"
	Database string `json:"database,omitempty"`
	// tls says how the login is protected.
	// +optional
	// +kubebuilder:default=Disable
	TLS ProbeTLSMode `json:"tls,omitempty"`
}

// SecretReference names a secret of the same namespace.
type SecretReference struct {
	// name of the secret.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`
	Name string `json:"name"`
}

// ProbeRead is the part of a probe that only reads.
type ProbeRead struct {
	// period is the time from one to the next, with a tenth of jitter; after
	// failures it is longer, up to a minute.
	// +optional
	// +kubebuilder:default="5s"
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s') && duration(self) <= duration('1h')",message="must be from 1s to 1h"
	Period metav1.Duration `json:"period,omitempty"`
}

// ProbeWrite is the part of a probe that writes.
type ProbeWrite struct {
	// mode is Off or Replicated. Replicated needs the table mooring.heartbeat; see
	// deploy/probes.
	// +optional
	// +kubebuilder:default=Off
	Mode ProbeWriteMode `json:"mode,omitempty"`
	// period is the time from one heartbeat to the next.
	// +optional
	// +kubebuilder:default="10s"
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('10s') && duration(self) <= duration('1h')",message="must be from 10s to 1h"
	Period metav1.Duration `json:"period,omitempty"`
}

// TextPolicy says what is kept of the texts of statements.
// +kubebuilder:validation:Enum=Normalized;Off
type TextPolicy string

// Text policies.
const (
	// TextNormalized keeps texts without their literals.
	TextNormalized TextPolicy = "Normalized"
	// TextOff keeps none.
	TextOff TextPolicy = "Off"
)

// AuditClass is what is recorded whatever it takes.
// +kubebuilder:validation:Enum=session;read;write;ddl;all
type AuditClass string

// StatementsSpec says how statements are watched.
type StatementsSpec struct {
	// digests keeps statements apart by their shape.
	// +optional
	// +kubebuilder:default=true
	Digests *bool `json:"digests,omitempty"`
	// top is how many digests of an instance are shown for the time they take.
	// +optional
	// +kubebuilder:default=100
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=500
	Top *int32 `json:"top,omitempty"`
	// text says what is kept of their texts.
	// +optional
	// +kubebuilder:default=Normalized
	Text TextPolicy `json:"text,omitempty"`
	// slowThreshold is the time from which a statement is counted and recorded as
	// slow. 0s records none, and no failed statements either.
	// +optional
	// +kubebuilder:default="100ms"
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('0s') && duration(self) <= duration('24h')",message="must be from 0s to 24h"
	SlowThreshold *metav1.Duration `json:"slowThreshold,omitempty"`
	// audit lists what is recorded whatever it takes; nothing by default.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=5
	Audit []AuditClass `json:"audit,omitempty"`
}

// RoleSource finds an instance's role in a pod label that the database's own
// operator keeps up to date.
type RoleSource struct {
	// label is the key of the pod label.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=317
	Label string `json:"label"`
	// primaryValues are the values that mean primary.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=8
	// +kubebuilder:default={"primary","master","leader"}
	PrimaryValues []string `json:"primaryValues,omitempty"`
	// replicaValues are the values that mean replica.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=8
	// +kubebuilder:default={"replica","standby","secondary","slave","follower"}
	ReplicaValues []string `json:"replicaValues,omitempty"`
}

// ChaosLimits says what experiments may do.
type ChaosLimits struct {
	// allow lets experiments break the instances.
	// +optional
	Allow bool `json:"allow,omitempty"`
	// maxAffected is how many instances of one cluster may be broken at a time, by
	// all experiments together, as a number or a percentage rounded down. Where it
	// is not given, it is less than half of the cluster.
	// +optional
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:XValidation:rule="type(self) == int ? self >= 1 && self <= 1000000 : self.matches('^([1-9]|[1-9][0-9]|100)%$')",message="must be a number from 1 to 1000000 or a percentage such as 50%"
	MaxAffected *intstr.IntOrString `json:"maxAffected,omitempty"`
	// maxDuration is the longest experiment allowed.
	// +optional
	// +kubebuilder:default="10m"
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s') && duration(self) <= duration('24h')",message="must be from 1s to 24h"
	MaxDuration Duration `json:"maxDuration,omitempty"`
}

// DatabasePolicyStatus is what the policy's pods are found to be.
type DatabasePolicyStatus struct {
	// observedGeneration is the generation of the spec this status is about.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// matched is how many pods the selector matches.
	// +optional
	Matched int32 `json:"matched"`
	// ready is how many of them their node's agent has found to be instances, treats
	// as the policy says now and has brought to where the policy wants them.
	// +optional
	Ready int32 `json:"ready"`
	// instances lists the matched pods, at most 128; agents and metrics have all.
	// +optional
	// +listType=map
	// +listMapKey=pod
	// +kubebuilder:validation:MaxItems=128
	Instances []InstanceStatus `json:"instances,omitempty"`
	// conditions are Accepted and Applied.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=8
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// InstanceStatus is one matched pod.
type InstanceStatus struct {
	// pod is its name.
	Pod string `json:"pod"`
	// node is where it runs; empty before it is scheduled.
	// +optional
	Node string `json:"node,omitempty"`
	// container runs the server.
	// +optional
	Container string `json:"container,omitempty"`
	// cluster it belongs to.
	// +optional
	Cluster string `json:"cluster,omitempty"`
	// role in that cluster; empty where it is unknown.
	// +optional
	Role string `json:"role,omitempty"`
	// numaNode is the one NUMA node it is confined to, by the kernel's word.
	// +optional
	NUMANode *int32 `json:"numaNode,omitempty"`
	// ready says that the agent knows it, goes by the policy as it is now, and has it
	// where the policy wants it.
	Ready bool `json:"ready"`
	// message says what is missing.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Message string `json:"message,omitempty"`
}

// DatabasePolicyList is a list of policies.
//
// +kubebuilder:object:root=true
type DatabasePolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []DatabasePolicy `json:"items"`
}
