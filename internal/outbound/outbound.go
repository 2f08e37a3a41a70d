// Package outbound makes connections to elsewhere, through the proxy that the environment names.
package outbound

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/net/http/httpproxy"

	"github.com/sallyport/sallyport/internal/fault"
)

// Time bounds reaching a server.
const Time = 20 * time.Second

// Dial connects, through HTTPS_PROXY where NO_PROXY does not name the host.
func Dial(ctx context.Context, addr string) (net.Conn, error) {
	d := net.Dialer{Timeout: Time}
	via, err := httpproxy.FromEnvironment().ProxyFunc()(&url.URL{Scheme: "https", Host: addr})
	if err != nil || (via != nil && via.Hostname() == "") { // its text may hold the proxy's password
		return nil, fault.New(fault.Invalid, "HTTPS_PROXY is no URL of a proxy").WithReason("http_proxy").WithFix("HTTPS_PROXY=http://HOST:PORT")
	}
	if via != nil && via.Scheme != "http" { // nothing is said in the clear to a proxy that is to be spoken to otherwise
		return nil, fault.New(fault.Unsupported, "HTTPS_PROXY: a proxy of scheme %q is not supported", via.Scheme).WithReason("http_proxy").
			WithFix("HTTPS_PROXY=http://HOST:PORT")
	}
	if via == nil {
		conn, err := d.DialContext(ctx, "tcp", addr)
		if err != nil {
			return nil, Unreachable(addr, err)
		}
		return conn, nil
	}
	hop := via.Host
	if via.Port() == "" {
		hop = net.JoinHostPort(via.Hostname(), "8080")
	}
	conn, err := d.DialContext(ctx, "tcp", hop)
	if err != nil {
		return nil, Unreachable(hop, err).WithCause("it is the HTTPS_PROXY of this environment: %v", errors.Unwrap(err))
	}
	if err := connectVia(conn, via, addr); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// connectVia asks an HTTP proxy for a tunnel (RFC 9110 section 9.3.6).
func connectVia(conn net.Conn, via *url.URL, addr string) error {
	_ = conn.SetDeadline(time.Now().Add(Time))
	req := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: addr}, Host: addr, Header: http.Header{}}
	if u := via.User; u != nil {
		password, _ := u.Password()
		req.Header.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(u.Username()+":"+password)))
	}
	if err := req.Write(conn); err != nil {
		return Unreachable(addr, err)
	}
	r := bufio.NewReaderSize(conn, 1)
	res, err := http.ReadResponse(r, req)
	if err != nil {
		return Unreachable(addr, err)
	}
	if res.StatusCode != http.StatusOK {
		return fault.New(fault.Unavailable, "the HTTP proxy %s refused a connection to %s: %s", via.Host, addr, res.Status).WithReason("http_proxy")
	}
	return conn.SetDeadline(time.Time{})
}

// Unreachable is the fault of an address that could not be reached.
func Unreachable(addr string, err error) *fault.Error {
	return fault.New(fault.Unavailable, "cannot reach %s", addr).WithReason("unreachable").
		WithCause("%s", strings.TrimPrefix(err.Error(), "dial tcp ")).Wrapping(err)
}
