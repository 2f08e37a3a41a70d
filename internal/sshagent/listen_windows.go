package sshagent

import (
	"net"

	"github.com/sallyport/sallyport/internal/fault"
)

// Listen makes the agent's socket, readable by this user alone. One that is left over from a dead agent is replaced;
// one that is in use is a fault. On Windows it is a fault that says so.
func Listen(string) (net.Listener, error) {
	return nil, fault.New(fault.Unsupported, "tsh agent is not offered on Windows yet").WithReason("platform").
		WithFix("tsh ssh, or ssh with the ProxyCommand that tsh config prints")
}
