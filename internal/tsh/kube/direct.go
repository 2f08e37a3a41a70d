package kube

import (
	"encoding/pem"
	"time"

	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/hwkey"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/tsh/tool"
)

// servedName is the name in TLS by which the proxy passes a client on to a cluster's agent.
func servedName(s *tool.State, c choice) string {
	return identity.Host{Role: identity.RoleKube, Cluster: s.Profile.Cluster}.ServedDNSName(c.Name)
}

// passable refuses what kubectl could not be handed.
func passable(s *tool.State, c choice) error {
	if s.Key.Kind() == device.Software {
		return nil
	}
	return fault.New(fault.Unsupported, "this login's key is in hardware, and no client can take it from a file").WithReason("hardware_key").
		WithFix("tsh kube login %s", c.Name)
}

// ownCredentials answers with the login's own certificate and key. The key is read at each call: a login since then may have
// put it into hardware.
func (a commands) ownCredentials(s *tool.State, c choice) error {
	f, err := hwkey.ReadFile(s.Home.KeyFile(s.Profile))
	if err != nil {
		return err
	}
	if f.Kind != device.Software {
		return fault.New(fault.Unsupported, "this login's key is in hardware by now").WithReason("hardware_key").WithFix("tsh kube login %s", c.Name)
	}
	until := a.Now().Add(credentialLife)
	if end := s.Login.TLS.NotAfter.Add(-time.Second); end.Before(until) {
		until = end
	}
	return a.answer(until, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Login.TLS.Raw}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: f.Private}))
}
