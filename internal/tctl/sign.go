package tctl

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/sallyport/sallyport/internal/client/authority"
	"github.com/sallyport/sallyport/internal/console"
	"github.com/sallyport/sallyport/internal/profile"
	"github.com/sallyport/sallyport/internal/tctl/tool"
)

type signFlags struct {
	db, out, protocol string
	hosts             []string
	ttl               time.Duration
}

func (t commands) authSign() *cobra.Command {
	var f signFlags
	c := tool.Command("sign --db=NAME --out=PREFIX", "Make the certificate of a database's server, and print its configuration",
		"tctl auth sign --db=orders --host=db.internal --out=orders", 0, func(ctx context.Context, _ []string) error { return t.sign(ctx, f) })
	c.Flags().StringVar(&f.db, "db", "", "the database's name")
	c.Flags().StringVar(&f.out, "out", "", "where to write PREFIX.key, PREFIX.crt and PREFIX.cas")
	c.Flags().StringSliceVar(&f.hosts, "host", nil, "names or addresses by which agents reach the server; that of the resource's uri unless told")
	c.Flags().StringVar(&f.protocol, "protocol", "", "postgres, mysql, redis or mongodb; that of the resource unless told")
	c.Flags().DurationVar(&f.ttl, "ttl", 90*24*time.Hour, "how long the server's certificate lives, 8760h at most")
	return c
}

func (t commands) sign(ctx context.Context, f signFlags) error {
	if f.db == "" || f.out == "" {
		return console.Usagef("--db and --out must be set")
	}
	c, err := t.Cluster(ctx)
	if err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	got, err := authority.New(c).DatabaseServer(ctx, key.Public(), f.db, f.hosts, f.ttl)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	prefix, err := filepath.Abs(f.out)
	if err != nil {
		return err
	}
	for _, file := range []struct {
		suffix, kind string
		der          []byte
	}{{".key", "PRIVATE KEY", der}, {".crt", "CERTIFICATE", got.TLS}, {".cas", "CERTIFICATE", got.Authority}} {
		if err := profile.Write(prefix+file.suffix, pem.EncodeToMemory(&pem.Block{Type: file.kind, Bytes: file.der})); err != nil {
			return err
		}
	}
	fmt.Fprintf(t.Out, "Wrote %s.key, .crt and .cas; the certificate ends at %s.\nGive them to the user that the server runs as, then configure it:\n", prefix, got.Expires.Format(time.RFC3339))
	protocol := f.protocol
	if protocol == "" {
		protocol = got.Protocol
	}
	for _, p := range []struct{ name, text string }{
		{"postgres", "\n# postgresql.conf\nssl = on\nssl_key_file = '%[1]s.key'\nssl_cert_file = '%[1]s.crt'\nssl_ca_file = '%[1]s.cas'\n\n# pg_hba.conf, ahead of other lines: users by certificate\nhostssl all all 0.0.0.0/0 cert\nhostssl all all ::/0 cert\n"},
		{"mysql", "\n# my.cnf\n[mysqld]\nrequire_secure_transport = on\nssl_key = %[1]s.key\nssl_cert = %[1]s.crt\nssl_ca = %[1]s.cas\n\n# a user, by certificate\nCREATE USER alice REQUIRE SUBJECT '/CN=alice';\n"},
		{"redis", "\n# redis.conf\nport 0\ntls-port 6379\ntls-key-file %[1]s.key\ntls-cert-file %[1]s.crt\ntls-ca-cert-file %[1]s.cas\ntls-auth-clients yes\nprotected-mode no\n"},
		{"mongodb", "\n# cat %[1]s.key %[1]s.crt > %[1]s.pem; mongod.conf\nnet:\n  tls: {mode: requireTLS, certificateKeyFile: %[1]s.pem, CAFile: %[1]s.cas}\nsecurity: {authorization: enabled}\n\n// a user, by certificate\ndb.getSiblingDB(\"$external\").runCommand({createUser: \"CN=alice\", roles: [{role: \"readWrite\", db: \"shop\"}]})\n"},
	} {
		if protocol == "" || protocol == p.name {
			fmt.Fprintf(t.Out, p.text, prefix)
		}
	}
	return nil
}
