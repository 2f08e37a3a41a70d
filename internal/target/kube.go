package target

import (
	"fmt"

	"github.com/sallyport/sallyport/internal/label"
)

// KubeCluster is the resource kube_cluster: a Kubernetes cluster that agents reach.
type KubeCluster struct {
	Name   string    `json:"-" yaml:"name"`
	Labels label.Set `json:"-" yaml:"labels"`
	// Kubeconfig is a file on the agent; empty is the cluster that the agent's own pod runs in.
	Kubeconfig string `json:"kubeconfig,omitempty" yaml:"kubeconfig"`
	// Context is one of the file's; its current one where empty.
	Context string `json:"context,omitempty" yaml:"context"`
	// Agents, ids or names, are who serves it; every agent of role kube where it is empty.
	Agents []string `json:"agents,omitempty" yaml:"-"`
}

// Check refuses what does not hold.
func (k KubeCluster) Check() error {
	if err := checkName(k.Name); err != nil {
		return err
	}
	if k.Context != "" && k.Kubeconfig == "" {
		return fmt.Errorf("context: there is no kubeconfig that it could be of")
	}
	return checkLabels(k.Labels)
}

// KubeObject is what a request to a Kubernetes API server is about: a resource's objects, or, where Resource is empty, a
// path that is no resource's. A subresource that stands for a verb of its own (exec, portforward) is not in Subresource.
type KubeObject struct {
	Group       string `json:"group,omitempty"`
	Resource    string `json:"resource,omitempty"` // plural, as in paths
	Subresource string `json:"subresource,omitempty"`
	Namespace   string `json:"namespace,omitempty"` // empty for what is cluster-wide, and for all namespaces at once
	Name        string `json:"name,omitempty"`      // empty for all of them
	Path        string `json:"path,omitempty"`
}

// String is the object as people write it.
func (o KubeObject) String() string {
	if o.Resource == "" {
		return o.Path
	}
	s := o.Resource
	if o.Group != "" {
		s += "." + o.Group
	}
	if o.Subresource != "" {
		s += "/" + o.Subresource
	}
	if o.Name != "" {
		s += " " + o.Name
	}
	if o.Namespace != "" {
		s += " in " + o.Namespace
	}
	return s
}
