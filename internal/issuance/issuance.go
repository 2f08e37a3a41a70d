// Package issuance certifies what agents need at their doors: the names that they serve, and a database's own users and
// server.
package issuance

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sallyport/sallyport/internal/ca"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/identity"
	"github.com/sallyport/sallyport/internal/records"
	"github.com/sallyport/sallyport/internal/snapshot"
	"github.com/sallyport/sallyport/internal/store"
	"github.com/sallyport/sallyport/internal/target"
)

// Pictures gives the current picture.
type Pictures interface {
	Current() (*snapshot.Picture, time.Duration)
}

// Service is the use case.
type Service struct {
	Records  *records.Records
	Store    store.Store
	CA       *ca.CA
	Pictures Pictures
}

// Served is a certificate for the names that an agent serves; of Refused, by name, it says why they are not in it.
type Served struct {
	TLS     []byte // DER
	Names   []string
	Refused map[string]string
}

// Certify gives an agent a certificate for the resources that it serves. A name that nobody created by hand and nobody
// holds becomes the agent's.
func (s *Service) Certify(ctx context.Context, host identity.Host, key crypto.PublicKey, names []string) (Served, error) {
	var list []target.Served
	for _, n := range names {
		list = append(list, target.Served{Name: n})
	}
	if err := target.CheckServed(list); err != nil {
		return Served{}, fault.New(fault.Invalid, "%v", err).WithReason("served_names")
	}
	out := Served{Refused: map[string]string{}}
	for _, n := range names {
		why, err := s.take(ctx, host, n)
		if err != nil {
			return Served{}, err
		}
		if why != "" {
			out.Refused[n] = why
			continue
		}
		out.Names = append(out.Names, n)
	}
	prepared, err := s.CA.PrepareServed(ca.ServedRequest{Host: host, Key: key, Names: out.Names})
	if err != nil {
		return Served{}, fault.New(fault.Invalid, "%v", err).WithReason("host_request")
	}
	out.TLS, err = prepared.Issue(ctx)
	return out, err
}

// take takes a name for a host where it may have it, and says why where it may not.
func (s *Service) take(ctx context.Context, host identity.Host, name string) (why string, err error) {
	picture, _ := s.Pictures.Current()
	if byHand, serves := picture.Assigned(host, name); byHand {
		if !serves {
			return fmt.Sprintf("%s/%s was created for other agents", host.Role, name), nil
		}
		return "", nil
	}
	for range 3 {
		c, found, err := s.Records.Claimed(ctx, host.Role, name)
		if err != nil {
			return "", err
		}
		if found && c.Of(host) {
			return "", nil
		}
		if found {
			return fmt.Sprintf("%q is served by host %s (to free it: tctl rm node/%s; to share it, join both by a token with one name: tctl tokens add --type=%s --name=…)",
				name, c.ID, c.ID, host.Role), nil
		}
		ops, err := records.TakeServed(host, name)
		if err != nil {
			return "", err
		}
		if _, err = s.Store.Txn(ctx, ops); err == nil {
			return "", nil
		}
		if !errors.Is(err, store.ErrConflict) {
			return "", err
		}
	}
	return "", fault.New(fault.Unavailable, "the name %q is being taken by several", name)
}

// Serves reports whether a host may serve a resource.
func (s *Service) Serves(ctx context.Context, host identity.Host, name string) (bool, error) {
	picture, _ := s.Pictures.Current()
	if byHand, serves := picture.Assigned(host, name); byHand {
		return serves, nil
	}
	c, found, err := s.Records.Claimed(ctx, host.Role, name)
	return found && c.Of(host), err
}

// DatabaseClient gives an agent a certificate by which it is a user of a database that it serves.
func (s *Service) DatabaseClient(ctx context.Context, host identity.Host, req ca.DatabaseRequest) (ca.DatabaseCertificate, error) {
	serves, err := s.Serves(ctx, host, req.Database)
	if err != nil {
		return ca.DatabaseCertificate{}, err
	}
	if !serves || host.Role != identity.RoleDB {
		return ca.DatabaseCertificate{}, fault.New(fault.Denied, "host %s does not serve database %q", host.ID, req.Database).WithReason("not_served")
	}
	req.By, req.Hosts, req.Life = "host:"+host.ID, nil, 0
	if req.DBUser == "" {
		return ca.DatabaseCertificate{}, fault.New(fault.Invalid, "a certificate for no database user").WithReason("database_request")
	}
	return s.issue(ctx, req)
}

// DatabaseServer gives a database server the certificate that agents know it by.
func (s *Service) DatabaseServer(ctx context.Context, from identity.Caller, req ca.DatabaseRequest) (ca.DatabaseCertificate, error) {
	req.By, req.DBUser = from.Name(), ""
	req.Hosts = slices.DeleteFunc(slices.Clone(req.Hosts), func(h string) bool { return h == "" })
	if len(req.Hosts) == 0 {
		return ca.DatabaseCertificate{}, fault.New(fault.Invalid, "by which name do agents reach the server of database %q?", req.Database).
			WithReason("no_host").WithFix("tctl auth sign --db=%s --host=HOST --out=PREFIX", req.Database)
	}
	return s.issue(ctx, req)
}

func (s *Service) issue(ctx context.Context, req ca.DatabaseRequest) (ca.DatabaseCertificate, error) {
	prepared, err := s.CA.PrepareDatabase(req)
	if err != nil {
		return ca.DatabaseCertificate{}, fault.New(fault.Invalid, "%v", err).WithReason("database_request")
	}
	return prepared.Issue(ctx)
}
