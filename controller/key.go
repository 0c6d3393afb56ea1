package controller

import (
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// kind is what a Key is of.
type kind string

const (
	kindPolicy kind = "policy"
	kindChaos  kind = "experiment"
	kindResize kind = "resize"
	// kindNode is what one agent is to be told; Name is the node.
	kindNode kind = "node"
	// kindAgents is the set of agents; the rest of the key is empty.
	kindAgents kind = "agents"
)

// key is one thing to look at again.
type key struct {
	kind      kind
	namespace string
	name      string
}

func keyOf(k kind, o client.Object) key { return key{k, o.GetNamespace(), o.GetName()} }

func (k key) object() types.NamespacedName {
	return types.NamespacedName{Namespace: k.namespace, Name: k.name}
}
