package upstream

import (
	"context"
	"crypto/tls"
	"net"
	"strings"
	"time"
)

// dialTime bounds how long a server may take to be there.
const dialTime = 10 * time.Second

// Dial opens a connection of its own to the server, for what is no request any more once it has begun.
func (s *Server) Dial(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTime)
	defer cancel()
	at := s.URL.Host
	dialer := &net.Dialer{KeepAlive: 30 * time.Second}
	if s.URL.Scheme != "https" { // a kubeconfig's always is
		return dialer.DialContext(ctx, "tcp", withPort(at, "80"))
	}
	conf := s.Upgrade.TLSClientConfig.Clone()
	if conf.ServerName == "" {
		conf.ServerName = s.URL.Hostname()
	}
	return (&tls.Dialer{NetDialer: dialer, Config: conf}).DialContext(ctx, "tcp", withPort(at, "443"))
}

func withPort(host, port string) string {
	if _, _, err := net.SplitHostPort(host); err == nil {
		return host
	}
	return net.JoinHostPort(strings.Trim(host, "[]"), port)
}
