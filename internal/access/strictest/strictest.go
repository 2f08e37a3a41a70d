// Package strictest is what stands for roles, locks and settings that cannot be read.
package strictest

import (
	"github.com/sallyport/sallyport/internal/cluster"
	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/label"
	"github.com/sallyport/sallyport/internal/lock"
	"github.com/sallyport/sallyport/internal/role"
)

// Role is the deny side that stands for a role which cannot be read.
func Role() role.Conditions {
	all := label.Selector{"*": {"*"}}
	return role.Conditions{NodeLabels: all, DBLabels: all, KubernetesLabels: all, AppLabels: all,
		Rules: []role.Rule{{Resources: []string{"*"}, Verbs: []string{"*"}}}}
}

// Lock stands for a lock which cannot be read.
func Lock(name string) *lock.Lock { return &lock.Lock{Name: name} }

// Settings stands for settings which cannot be read.
func Settings() *cluster.Settings {
	return &cluster.Settings{SecondFactors: []string{"unknown"}, DeviceTrust: cluster.DeviceTrust{Mode: device.ModeRequired}, LockingMode: "strict"}
}
