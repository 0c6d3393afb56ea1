// Package v1alpha1 holds the custom resources of mooring.dev: what a person
// asks of the databases of a namespace, and what came of it.
//
// A DatabasePolicy declares which pods of its namespace are database instances
// and what may be done to them. An InstanceResize changes the CPU and memory of
// some of them. A ChaosExperiment breaks some of them for a while. All three
// select pods of their own namespace only.
//
// The types hold no logic. The field comments are the documentation that
// `kubectl explain` prints; the markers become the schema, its defaults and its
// CEL rules. Every resource has a status subresource with
// conditions in the form of metav1.Condition; lists in a status are bounded, so
// that an object never outgrows etcd.
//
// To change a type, edit its file and run make generate: the deep copies here
// and the manifests in deploy/crds follow.
//
// +kubebuilder:object:generate=true
// +groupName=mooring.dev
package v1alpha1
