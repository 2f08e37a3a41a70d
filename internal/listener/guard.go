package listener

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/listener/refusal"
	"github.com/sallyport/sallyport/internal/profile"
	"github.com/sallyport/sallyport/internal/target"
	"software.sslmate.com/src/go-pkcs12"
)

// Files are the certificates by which clients of this user reach its local ports, and nothing else.
type Files struct {
	CA     string // PEM, what the port's own certificate is by
	Cert   string
	Key    string
	PKCS8  string // the key as DER, as JDBC wants it
	Both   string // certificate and key in one file, as MongoDB's clients want it
	PKCS12 string // both for Java, under the password `local`: the file is what keeps others out
}

// FilesOf are where they lie in a directory.
func FilesOf(dir string) Files {
	return Files{CA: filepath.Join(dir, "local-ca.pem"), Cert: filepath.Join(dir, "local-cert.pem"), Key: filepath.Join(dir, "local-key.pem"), PKCS8: filepath.Join(dir, "local-key.pk8"), Both: filepath.Join(dir, "local-client.pem"), PKCS12: filepath.Join(dir, "local-client.p12")}
}

// localLife is how long they live; they are made anew in the last third.
const localLife = 30 * 24 * time.Hour

// renewFiles makes the certificates of a directory where there are none, or they are nearly over.
func renewFiles(dir string) error {
	f, server := FilesOf(dir), filepath.Join(dir, "local-server.pem")
	if _, err := loadConfig(f, server, localLife/3); err == nil {
		return nil
	}
	return makeFiles(f, server)
}

// serverConfig is what a port shows and asks for: the certificates of its directory, as they are when somebody comes, for a
// port may stand longer than they live.
func serverConfig(dir string) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, SessionTicketsDisabled: true, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		return loadConfig(FilesOf(dir), filepath.Join(dir, "local-server.pem"), 0)
	}}
}

// loadConfig reads certificates that live for another while.
func loadConfig(f Files, server string, while time.Duration) (*tls.Config, error) {
	ca, err := os.ReadFile(f.CA)
	if err != nil {
		return nil, err
	}
	cert, err := tls.LoadX509KeyPair(server, server)
	if err != nil {
		return nil, err
	}
	if time.Until(cert.Leaf.NotAfter) < while {
		return nil, errors.New("local certificates are nearly over")
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, errors.New("local authority cannot be read")
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: roots,
		SessionTicketsDisabled: true, NextProtos: []string{"h2", "http/1.1", "postgresql"}}, nil
}

// makeFiles makes an authority, which is forgotten once it has signed for the port and for its clients.
func makeFiles(f Files, server string) error {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	now := time.Now()
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "tsh on this machine"}, NotBefore: now.Add(-time.Minute), NotAfter: now.Add(localLife),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		return err
	}
	leaf := func(serial int64, usage x509.ExtKeyUsage, name string) (certPEM, keyPEM, keyDER []byte, err error) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, nil, nil, err
		}
		t := &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
			KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{usage}, DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
		der, err := x509.CreateCertificate(rand.Reader, t, ca, key.Public(), caKey)
		if err != nil {
			return nil, nil, nil, err
		}
		keyDER, err = x509.MarshalPKCS8PrivateKey(key)
		return encode("CERTIFICATE", der), encode("PRIVATE KEY", keyDER), keyDER, err
	}
	serverCert, serverKey, _, err := leaf(2, x509.ExtKeyUsageServerAuth, "localhost")
	if err != nil {
		return err
	}
	clientCert, clientKey, clientDER, err := leaf(3, x509.ExtKeyUsageClientAuth, "client")
	if err != nil {
		return err
	}
	store, err := keystore(clientCert, clientDER)
	if err != nil {
		return err
	}
	for path, raw := range map[string][]byte{f.PKCS12: store, f.Cert: clientCert, f.Key: clientKey, f.PKCS8: clientDER, f.Both: append(bytes.Clone(clientCert), clientKey...), f.CA: encode("CERTIFICATE", caDER), server: append(serverCert, serverKey...)} {
		if err := profile.Write(path, raw); err != nil {
			return err
		}
	}
	return nil
}

// keystore is a certificate and its key as Java reads them.
func keystore(certPEM, keyDER []byte) ([]byte, error) {
	key, err := x509.ParsePKCS8PrivateKey(keyDER)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(certPEM)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, err
	}
	return pkcs12.Modern.Encode(key, cert, nil, KeystorePassword)
}

// KeystorePassword opens the PKCS #12 file.
const KeystorePassword = "local"

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// guardFor lets in over TLS who has this user's local certificate, in the way of a protocol.
func guardFor(p target.Protocol, config *tls.Config) guard {
	shake := func(c net.Conn) (net.Conn, error) {
		conn := tls.Server(c, config)
		return conn, conn.Handshake()
	}
	if p == target.MySQL {
		return open
	}
	if p == target.PostgreSQL {
		return func(c net.Conn) (net.Conn, error) { return postgresGuard(c, shake) }
	}
	return shake
}

// The first messages of PostgreSQL's protocol, length and code.
var (
	sslRequest    = []byte{0, 0, 0, 8, 4, 210, 22, 47}
	gssEncRequest = []byte{0, 0, 0, 8, 4, 210, 22, 48}
)

// cancelRequest is the code of a CancelRequest, which clients send in clear; it says nothing that another could use.
const cancelRequest = 80877102

// postgresGuard takes direct TLS, SSLRequest and then TLS, and a CancelRequest; a startup in clear is refused, for it says
// nothing of who sends it.
func postgresGuard(c net.Conn, shake guard) (net.Conn, error) {
	for range 3 {
		var head [8]byte
		if _, err := io.ReadFull(c, head[:1]); err != nil {
			return nil, err
		}
		if head[0] == 22 {
			return shake(&unread{c, bytes.NewReader(head[:1])})
		}
		if _, err := io.ReadFull(c, head[1:]); err != nil {
			return nil, err
		}
		switch {
		case bytes.Equal(head[:], sslRequest):
			if _, err := c.Write([]byte{'S'}); err != nil {
				return nil, err
			}
			return shake(c)
		case bytes.Equal(head[:], gssEncRequest):
			if _, err := c.Write([]byte{'N'}); err != nil {
				return nil, err
			}
		case binary.BigEndian.Uint32(head[4:]) == cancelRequest && binary.BigEndian.Uint32(head[:4]) <= 64:
			return &unread{c, bytes.NewReader(head[:])}, nil
		default:
			_, _ = c.Write(refusal.Postgres(fault.New(fault.Unauthenticated, "this port wants TLS with the certificate that tsh made for it").
				WithFix("tsh db config NAME")))
			drain(c)
			return nil, errors.New("startup in clear")
		}
	}
	return nil, errors.New("no startup")
}

// unread is a connection of which some was read ahead.
type unread struct {
	net.Conn
	ahead *bytes.Reader
}

// Read reads what was read ahead first.
func (u *unread) Read(p []byte) (int, error) {
	if u.ahead.Len() > 0 {
		return u.ahead.Read(p)
	}
	return u.Conn.Read(p)
}
