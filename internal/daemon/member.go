package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/sallyport/sallyport/internal/ca"
	"github.com/sallyport/sallyport/internal/client"
	"github.com/sallyport/sallyport/internal/client/contact"
	"github.com/sallyport/sallyport/internal/daemon/host"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/identity"
)

// member finds this host's identity for a role, or joins.
func (d *daemon) member(role identity.HostRole, name, addr string, publicAddr []string) (*host.Member, error) {
	file := d.memberFile(role)
	m, err := host.Load(file, role)
	if err == nil && (d.auth == nil || m.Host().Cluster == d.auth.host.Cluster) {
		return d.standing(m, publicAddr)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	j, err := d.joining(role, name, addr)
	if err != nil {
		return nil, err
	}
	j.PublicAddr = publicAddr
	m, notice, err := host.Join(d.ctx, file, role, j)
	if notice != "" {
		fmt.Fprintln(d.Out, notice)
	}
	return m, err
}

// standing refuses a member whose certificates are over: only a new token brings it back.
func (d *daemon) standing(m *host.Member, publicAddr []string) (*host.Member, error) {
	m.SetPublicAddr(publicAddr)
	leaf := m.Certificate().Leaf
	if now := time.Now(); now.After(leaf.NotAfter) {
		if d.auth != nil {
			if err := os.Remove(m.File()); err != nil {
				return nil, err
			}
			return d.member(m.Host().Role, m.Host().Name, d.state.Auth, publicAddr)
		}
		return nil, fault.New(fault.Unauthenticated, "this host's certificate has expired").WithReason("host_expired").
			WithCause("it ended %s ago; a host that is away for longer than %s has to join anew", now.Sub(leaf.NotAfter).Truncate(time.Second), ca.HostLife).
			WithFix("remove %s, then: tctl tokens add --type=%s", m.File(), m.Host().Role)
	}
	return m, nil
}

// joining says how to join: with a token of this process's own auth, or as the config says.
func (d *daemon) joining(role identity.HostRole, name, addr string) (host.Joining, error) {
	call := func(a client.Address) *client.Cluster { return a.Call(nil) }
	if role == identity.RoleProxy {
		call = client.Address.CallAuth
	}
	if d.auth != nil {
		token, err := d.hostToken(role, name)
		return host.Joining{Token: token, Name: name, Authority: d.auth.public.TLSHost, Call: call, Addr: addr}, err
	}
	c := d.Config.Join
	token, err := readToken(c.Token)
	if err != nil {
		return host.Joining{}, err
	}
	j := host.Joining{Token: token, Name: name, Call: call, Addr: addr}
	if role == identity.RoleProxy {
		j.Authority, err = contact.Auth(d.ctx, addr, c.CAPins)
	} else {
		j.Authority, err = contact.Proxy(d.ctx, addr, c.CAPins, false)
	}
	return j, err
}

// readToken takes a token as it is, or from @FILE.
func readToken(s string) (string, error) {
	path, isFile := strings.CutPrefix(s, "@")
	if !isFile {
		return s, nil
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return "", fault.New(fault.Invalid, "join token: %v", err).WithReason("config")
	}
	return strings.TrimSpace(string(raw)), nil
}
