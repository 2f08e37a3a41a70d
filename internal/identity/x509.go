package identity

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
)

// Object identifiers in X.509 certificates. The device's stand in an unassigned arc and are kept for compatibility;
// those of the attributes are ours, beside them.
var (
	OIDDeviceID         = asn1.ObjectIdentifier{1, 3, 9999, 3, 1}
	OIDDeviceTag        = asn1.ObjectIdentifier{1, 3, 9999, 3, 2}
	OIDDeviceCredential = asn1.ObjectIdentifier{1, 3, 9999, 3, 3}
	OIDAttributes       = asn1.ObjectIdentifier{1, 3, 9999, 4, 1}
	OIDHost             = asn1.ObjectIdentifier{1, 3, 9999, 4, 2}
)

// X509 fills a template's subject and extensions with this identity.
func (u *User) X509(t *x509.Certificate) error {
	raw, err := u.attributes()
	if err != nil {
		return err
	}
	t.Subject = pkix.Name{CommonName: u.Name}
	if d := u.Device; d != nil {
		t.Subject.ExtraNames = []pkix.AttributeTypeAndValue{
			{Type: OIDDeviceID, Value: d.ID},
			{Type: OIDDeviceTag, Value: d.AssetTag},
			{Type: OIDDeviceCredential, Value: d.CredentialID},
		}
	}
	t.ExtraExtensions = append(t.ExtraExtensions, pkix.Extension{Id: OIDAttributes, Value: raw})
	return nil
}

// FromX509 reads the identity of a user's X.509 certificate; verify its chain first.
func FromX509(c *x509.Certificate) (*User, error) {
	if c.IsCA {
		return nil, errors.New("a certificate authority is nobody's identity")
	}
	raw, err := extension(c, OIDAttributes)
	if err != nil {
		return nil, err
	}
	u := &User{Name: c.Subject.CommonName}
	u.Validity.Expires = c.NotAfter.UTC()
	if err := parseAttributes(raw, u); err != nil {
		return nil, err
	}
	if u.Validity.Serial != "" && fmt.Sprintf("%x", c.SerialNumber) != u.Validity.Serial {
		return nil, errors.New("serial number does not agree with the identity")
	}
	var want Device
	if u.Device != nil {
		want = *u.Device
	}
	for _, a := range []struct {
		oid  asn1.ObjectIdentifier
		want string
	}{{OIDDeviceID, want.ID}, {OIDDeviceTag, want.AssetTag}, {OIDDeviceCredential, want.CredentialID}} {
		if subjectValue(c, a.oid) != a.want {
			return nil, fmt.Errorf("subject attribute %s does not agree with the identity", a.oid)
		}
	}
	return u, nil
}

// X509 fills a template with what a host is.
func (h Host) X509(t *x509.Certificate) error {
	raw, err := h.attributes()
	if err != nil {
		return err
	}
	t.Subject = pkix.Name{CommonName: h.ID}
	t.DNSNames = append([]string{h.DNSName()}, t.DNSNames...)
	t.ExtraExtensions = append(t.ExtraExtensions, pkix.Extension{Id: OIDHost, Value: raw})
	return nil
}

// HostFromX509 reads the host of an X.509 certificate; verify its chain first.
func HostFromX509(c *x509.Certificate) (*Host, error) {
	if c.IsCA {
		return nil, errors.New("a certificate authority is no host")
	}
	raw, err := extension(c, OIDHost)
	if err != nil {
		return nil, err
	}
	return parseHostAttributes(raw)
}

func extension(c *x509.Certificate, oid asn1.ObjectIdentifier) ([]byte, error) {
	for _, e := range c.Extensions {
		if e.Id.Equal(oid) {
			return e.Value, nil
		}
	}
	return nil, fmt.Errorf("certificate without extension %s", oid)
}

func subjectValue(c *x509.Certificate, oid asn1.ObjectIdentifier) string {
	for _, n := range c.Subject.Names {
		if n.Type.Equal(oid) {
			s, _ := n.Value.(string)
			return s
		}
	}
	return ""
}
