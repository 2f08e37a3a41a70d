package daemon

import (
	"net"
	"net/netip"
)

// splitBound takes the address of a listener apart.
func splitBound(bound string) (netip.Addr, string, error) {
	host, port, err := net.SplitHostPort(bound)
	if err != nil {
		return netip.Addr{}, "", err
	}
	a, err := netip.ParseAddr(host)
	return a, port, err
}
