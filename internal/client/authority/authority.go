// Package authority asks auth for the certificates that agents' doors need.
package authority

import (
	"context"
	"crypto"
	"crypto/x509"
	"time"

	"connectrpc.com/connect"

	pb "github.com/sallyport/sallyport/api/sallyport/v1"
	"github.com/sallyport/sallyport/api/sallyport/v1/sallyportv1connect"
	"github.com/sallyport/sallyport/internal/client"
)

// Authority calls AuthorityService.
type Authority struct {
	calls sallyportv1connect.AuthorityServiceClient
}

// New calls over c, which stays the caller's to close.
func New(c *client.Cluster) *Authority {
	h, base, opts := c.Transport()
	return &Authority{sallyportv1connect.NewAuthorityServiceClient(h, base, opts...)}
}

// Served is a certificate for the names that an agent serves; Refused says, by name, why it is not in there.
type Served struct {
	TLS     []byte
	Names   []string
	Refused map[string]string
}

// Served certifies the names that the agent that calls serves.
func (a *Authority) Served(ctx context.Context, key crypto.PublicKey, names []string) (Served, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return Served{}, err
	}
	r, err := a.calls.CertifyServed(ctx, connect.NewRequest(&pb.CertifyServedRequest{Key: der, Names: names}))
	if err != nil {
		return Served{}, err
	}
	return Served{r.Msg.Tls, r.Msg.Names, r.Msg.Refused}, nil
}

// Database is a certificate of a database's own authority; URI and Protocol are known where there is such a resource.
type Database struct {
	TLS       []byte
	Authority []byte
	Expires   time.Time
	URI       string
	Protocol  string
}

func database(m *pb.DatabaseCertificate) Database {
	return Database{m.Tls, m.Authority, m.Expires.AsTime(), m.Uri, m.Protocol}
}

// DatabaseClient certifies the agent that calls as a user of a database that it serves.
func (a *Authority) DatabaseClient(ctx context.Context, key crypto.PublicKey, name, dbUser string) (Database, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return Database{}, err
	}
	r, err := a.calls.CertifyDatabaseClient(ctx, connect.NewRequest(&pb.CertifyDatabaseClientRequest{Key: der, Database: name, DbUser: dbUser}))
	if err != nil {
		return Database{}, err
	}
	return database(r.Msg), nil
}

// DatabaseServer certifies the server of a database, under hosts, or the host of its resource where there are none.
func (a *Authority) DatabaseServer(ctx context.Context, key crypto.PublicKey, name string, hosts []string, life time.Duration) (Database, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return Database{}, err
	}
	r, err := a.calls.CertifyDatabaseServer(ctx, connect.NewRequest(&pb.CertifyDatabaseServerRequest{Key: der, Database: name, Hosts: hosts,
		TtlSeconds: int64(life / time.Second)}))
	if err != nil {
		return Database{}, err
	}
	return database(r.Msg), nil
}
