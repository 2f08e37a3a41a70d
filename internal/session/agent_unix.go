//go:build unix

package session

import "net"

func dialAgent(socket string) (net.Conn, error) { return net.Dial("unix", socket) }
