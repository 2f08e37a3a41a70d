// Package localcert makes the certificates by which a user's clients and the local ports of the same user know each other.
package localcert

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/sallyport/sallyport/internal/profile"
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

func serverFile(dir string) string { return filepath.Join(dir, "local-server.pem") }

// life is how long they live; they are made anew in the last third.
const life = 30 * 24 * time.Hour

// Renew makes the certificates of a directory where there are none, or they are nearly over.
func Renew(dir string) error {
	f, server := FilesOf(dir), serverFile(dir)
	if _, err := load(f, server, life/3); err == nil {
		return nil
	}
	return Make(dir)
}

// Config is what a port shows and asks for: the certificates of its directory, as they are when somebody comes, for a
// port may stand longer than they live.
func Config(dir string) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, SessionTicketsDisabled: true, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		return load(FilesOf(dir), serverFile(dir), 0)
	}}
}

// load reads certificates that live for another while.
func load(f Files, server string, while time.Duration) (*tls.Config, error) {
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

// Make makes an authority, which is forgotten once it has signed for the port and for its clients.
func Make(dir string) error {
	f, server := FilesOf(dir), serverFile(dir)
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	now := time.Now()
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "tsh on this machine"}, NotBefore: now.Add(-time.Minute), NotAfter: now.Add(life),
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
