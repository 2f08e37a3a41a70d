// Package sshcert judges users' SSH certificates by a cluster's authorities (OpenSSH PROTOCOL.certkeys).
package sshcert

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/sallyport/sallyport/internal/identity"
)

// Unfit is why a certificate lets nobody in: a stable word, and a sentence.
type Unfit struct{ Reason, Text string }

// Error is the sentence.
func (u *Unfit) Error() string { return u.Text }

// Rules are what a certificate is judged by. Zero rules take none.
type Rules struct {
	Authorities []ssh.PublicKey
	Cluster     string
	Now         time.Time
}

// User takes the certificate of one of the cluster's users that names a login, or, where login is empty, any that an
// agent could accept. The error is an *Unfit.
func (r Rules) User(login string, key ssh.PublicKey) (*identity.User, error) {
	cert, ok := key.(*ssh.Certificate)
	if !ok {
		return nil, &Unfit{"not_a_certificate", "a key without a certificate"}
	}
	if login == "" && len(cert.ValidPrincipals) > 0 {
		login = cert.ValidPrincipals[0]
	} else if strings.HasPrefix(login, "-") {
		return nil, unnamed(login)
	}
	if err := r.check(login, cert); err != nil {
		return nil, err
	}
	u, err := identity.FromSSH(cert)
	if err != nil {
		return nil, &Unfit{"identity", err.Error()}
	}
	if u.Cluster != r.Cluster || r.Cluster == "" {
		return nil, &Unfit{"cluster", fmt.Sprintf("a certificate of cluster %q", u.Cluster)}
	}
	return u, nil
}

func unnamed(login string) error {
	return &Unfit{"principal", fmt.Sprintf("the certificate does not name the login %q", login)}
}

func (r Rules) check(login string, cert *ssh.Certificate) error {
	if cert.CertType != ssh.UserCert {
		return &Unfit{"not_a_user_certificate", "not a user certificate"}
	}
	ours := func(k ssh.PublicKey) bool {
		return slices.ContainsFunc(r.Authorities, func(a ssh.PublicKey) bool { return bytes.Equal(a.Marshal(), k.Marshal()) })
	}
	if !ours(cert.SignatureKey) {
		return &Unfit{"authority", "a certificate of another authority"}
	}
	if cert.Signature.Format == ssh.KeyAlgoRSA {
		return &Unfit{"authority", "a certificate signed with SHA-1"}
	}
	// No principals means every login to OpenSSH, and none here.
	if !slices.Contains(cert.ValidPrincipals, login) {
		return unnamed(login)
	}
	if cert.ValidBefore <= cert.ValidAfter || cert.ValidBefore-cert.ValidAfter > uint64((identity.MaxLifetime+identity.Backdate)/time.Second) {
		return &Unfit{"lifetime", "a certificate that lives longer than any may"}
	}
	checker := ssh.CertChecker{Clock: func() time.Time { return r.Now }, SupportedCriticalOptions: []string{"source-address"}, IsUserAuthority: ours}
	if err := checker.CheckCert(login, cert); err != nil {
		return &Unfit{"certificate", err.Error()}
	}
	return nil
}
