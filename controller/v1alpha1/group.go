package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupName is the API group of all of Mooring's resources.
const GroupName = "mooring.dev"

// GroupVersion returns the group and version of the types here.
func GroupVersion() schema.GroupVersion {
	return schema.GroupVersion{Group: GroupName, Version: "v1alpha1"}
}

// AddToScheme teaches s the types of this package.
func AddToScheme(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion(),
		&DatabasePolicy{}, &DatabasePolicyList{},
		&InstanceResize{}, &InstanceResizeList{},
		&ChaosExperiment{}, &ChaosExperimentList{},
	)
	metav1.AddToGroupVersion(s, GroupVersion())
	return nil
}

// MaxTargets bounds every list of instances in a status.
const MaxTargets = 128

// Role is what an instance does in its cluster.
// +kubebuilder:validation:Enum=primary;replica
type Role string

// Roles of an instance. The empty role is unknown.
const (
	Primary Role = "primary"
	Replica Role = "replica"
)
