package access

import (
	"github.com/sallyport/sallyport/internal/cluster"
	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/label"
	"github.com/sallyport/sallyport/internal/lock"
	"github.com/sallyport/sallyport/internal/role"
)

// Everything is the deny side that stands for a role which cannot be read.
func Everything() role.Conditions {
	all := label.Selector{"*": {"*"}}
	return role.Conditions{NodeLabels: all, DBLabels: all, KubernetesLabels: all, AppLabels: all,
		Rules: []role.Rule{{Resources: []string{"*"}, Verbs: []string{"*"}}}}
}

// LockEverybody stands for a lock which cannot be read.
func LockEverybody(name string) *lock.Lock { return &lock.Lock{Name: name} }

// Strictest stands for settings which cannot be read.
func Strictest() *cluster.Settings {
	return &cluster.Settings{SecondFactors: []string{"unknown"}, DeviceTrust: cluster.DeviceTrust{Mode: device.ModeRequired}, LockingMode: "strict"}
}
