// Package contact is the first contact with a cluster: how its authority is learnt by somebody who has only a pin, the
// system's roots, or a person to ask.
package contact

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"

	"github.com/sallyport/sallyport/internal/cluster"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/outbound"
)

// contactTime bounds a contact.
const contactTime = outbound.Time

// Proxy asks HOST:PORT for the cluster's authority. With pins, what answers must match one; without, the
// connection must verify by the system's roots. Insecure takes the answer as it is. The fault of an unverified answer
// has the reason first_contact, and the certificate comes back beside it for a person to confirm.
func Proxy(ctx context.Context, addr string, pins []string, insecure bool) (*x509.Certificate, error) {
	ctx, cancel := context.WithTimeout(ctx, contactTime)
	defer cancel()
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fault.New(fault.Invalid, "--proxy: %q is no HOST:PORT", addr)
	}
	var systemErr error
	transport := &http.Transport{
		DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			raw, err := outbound.Dial(ctx, addr)
			if err != nil {
				return nil, err
			}
			name := host
			if net.ParseIP(host) != nil {
				name = ""
			}
			conn := tls.Client(raw, &tls.Config{MinVersion: tls.VersionTLS12, ServerName: name, NextProtos: []string{"http/1.1"},
				InsecureSkipVerify: true, // judged below, against the pin or the system's roots
				VerifyConnection: func(s tls.ConnectionState) error {
					opts := x509.VerifyOptions{DNSName: host, Intermediates: x509.NewCertPool()}
					for _, c := range s.PeerCertificates[1:] {
						opts.Intermediates.AddCert(c)
					}
					_, systemErr = s.PeerCertificates[0].Verify(opts)
					return nil
				}})
			return conn, conn.HandshakeContext(ctx)
		},
		DisableKeepAlives: true,
	}
	cert, err := fetchAuthority(ctx, transport, addr)
	if err != nil {
		return nil, err
	}
	switch {
	case len(pins) > 0:
		return cert, MatchPin(cert, pins)
	case insecure || systemErr == nil:
		return cert, nil
	}
	return cert, fault.New(fault.Unauthenticated, "the server at %s is not known, and its certificate does not verify", addr).
		WithReason("first_contact").WithCause("its CA pin is %s", cluster.Pin(cert)).
		WithFix("compare the pin with `tctl status` on the server, then: tsh login --proxy=%s --ca-pin=%s", addr, cluster.Pin(cert))
}

func fetchAuthority(ctx context.Context, t *http.Transport, addr string) (*x509.Certificate, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+addr+"/sallyport/v1/ca", nil)
	if err != nil {
		return nil, err
	}
	res, err := t.RoundTrip(req)
	if err != nil {
		var f *fault.Error
		if errors.As(err, &f) {
			return nil, f
		}
		return nil, outbound.Unreachable(addr, err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	block, _ := pem.Decode(raw)
	if err != nil || res.StatusCode != http.StatusOK || block == nil {
		return nil, fault.New(fault.Unavailable, "%s does not answer like a Sallyport proxy", addr).WithReason("no_proxy").WithCause("HTTP status %s", res.Status)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil || !cert.IsCA || cert.Subject.CommonName == "" {
		return nil, fault.New(fault.Unavailable, "%s answered with something that is no authority", addr).WithReason("no_proxy")
	}
	return cert, nil
}

// MatchPin refuses an authority that no pin names.
func MatchPin(authority *x509.Certificate, pins []string) error {
	have := cluster.Pin(authority)
	for _, p := range pins {
		if strings.EqualFold(strings.TrimSpace(p), have) {
			return nil
		}
	}
	return fault.New(fault.Unauthenticated, "the CA pin does not match").WithReason("pin_mismatch").
		WithCause("the server's is %s", have).WithFix("ask an administrator for the pin: tctl status")
}

// Auth asks auth's own listener for the cluster's authority: the last certificate of the chain that it shows.
// One of the pins must match.
func Auth(ctx context.Context, addr string, pins []string) (*x509.Certificate, error) {
	ctx, cancel := context.WithTimeout(ctx, contactTime)
	defer cancel()
	raw, err := outbound.Dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	defer raw.Close()
	var last *x509.Certificate
	conn := tls.Client(raw, &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"}, InsecureSkipVerify: true, // judged by the pin
		VerifyConnection: func(s tls.ConnectionState) error {
			last = s.PeerCertificates[len(s.PeerCertificates)-1]
			return MatchPin(last, pins)
		}})
	if err := conn.HandshakeContext(ctx); err != nil {
		var f *fault.Error
		if errors.As(err, &f) {
			return nil, f
		}
		return nil, outbound.Unreachable(addr, err)
	}
	if !last.IsCA || last.Subject.CommonName == "" {
		return nil, fault.New(fault.Unavailable, "%s shows no authority", addr).WithReason("no_auth")
	}
	return last, nil
}
