package attestation

import (
	"crypto/x509"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/fault"
)

// TestMissingIssuer: a chain that misses an issuer says which, with its address, which is asked by nobody (A74).
func TestMissingIssuerA74(t *testing.T) {
	var asked atomic.Int32
	maker := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	defer maker.Close()
	maker.Config.ConnState = func(net.Conn, http.ConnState) { asked.Add(1) }
	root := newMaker(t, "root", nil)
	inter := newMaker(t, "intermediate", root)
	template := ekTemplate(t)
	template.IssuingCertificateURL = []string{"ldap://x", "http://evil/$(reboot)", maker.URL + "/i.crt"}
	nv := issue(t, inter, template, &ekKey().PublicKey).Raw
	e, err := ParseEKCert(nv)
	if err != nil {
		t.Fatal(err)
	}
	_, err = e.Level(listed(t, root), now)
	want(t, err, "ekcert_untrusted")
	cause := fault.Of(err).Cause
	for _, w := range []string{"CN=intermediate", maker.URL + "/i.crt"} {
		if !strings.Contains(cause, w) {
			t.Errorf("no %q in %q", w, cause)
		}
	}
	if strings.Contains(cause, "reboot") || strings.Contains(cause, "ldap") {
		t.Errorf("%q", cause)
	}
	rows := []struct {
		name            string
		listed, further *Roots
		links           int
		trusted         bool
		missing         string
	}{
		{"nothing known", nil, nil, 1, false, "intermediate"},
		{"the root listed", listed(t, root), nil, 1, false, "intermediate"},
		{"the intermediate brought along", nil, listed(t, inter), 2, false, "root"},
		{"both brought along", nil, listed(t, inter, root), 3, false, ""},
		{"the root listed, the intermediate brought along", listed(t, root), listed(t, inter), 3, false, ""},
		{"both listed", listed(t, root, inter), nil, 3, true, ""},
		{"the intermediate listed", listed(t, inter), nil, 2, true, "root"},
		{"strangers of the same names", nil, listed(t, newMaker(t, "intermediate", nil), newMaker(t, "root", nil)), 1, false, "intermediate"},
	}
	for _, r := range rows {
		c, err := NewChain(nv, r.listed, r.further, now)
		if err != nil || len(c.Links) != r.links || c.Trusted != r.trusted || !strings.Contains(c.Missing, r.missing) || (c.Missing == "") != (r.missing == "") {
			t.Errorf("%s: %d links, %t, %q, %v", r.name, len(c.Links), c.Trusted, c.Missing, err)
		}
		if (c.Authorities() == "") != (r.links == 1) {
			t.Errorf("%s: %q", r.name, c.Authorities())
		}
		if r.missing == "" && !r.trusted { // what it gives makes the certificate trusted
			roots, err := ParseRoots([]byte(c.Authorities()))
			if err != nil {
				t.Fatal(err)
			}
			if level, err := e.Level(roots, now); err != nil || level != device.LevelTPMTrusted {
				t.Errorf("%s: %s %v", r.name, level, err)
			}
		}
	}
	if asked.Load() != 0 {
		t.Error("somebody asked the address that a certificate names")
	}
}

// TestApprovedAndMonitored: an approved key passes without a certificate, a monitored one is named; the level stays what
// is proven, and what is malformed passes neither.
func TestApprovedAndMonitored(t *testing.T) {
	root, stranger := newMaker(t, "root", nil), newMaker(t, "stranger", nil)
	j := NewJudge(listed(t, root), false, now)
	r := recordings(t)[0]
	area := r.hello[8]
	foreign := device.Evidence{Kind: device.TPM2, EKName: device.EKRSA2048, KeyArea: area, EKCert: issue(t, stranger, ekTemplate(t), &ekKey().PublicKey).Raw}
	bare := device.Evidence{Kind: device.TPM2, EKName: device.EKRSA2048, KeyArea: area, EKPublic: must(x509.MarshalPKIXPublicKey(&ekKey().PublicKey))}
	hash, err := EKHash(foreign)
	if err != nil {
		t.Fatal(err)
	}
	if other, err := EKHash(bare); err != nil || other != hash {
		t.Fatalf("%s %s %v", hash, other, err)
	}
	for name, x := range map[string]struct {
		e      device.Evidence
		level  device.Level
		reason string
	}{"foreign": {foreign, device.LevelTPMPub, "ekcert_untrusted"}, "bare": {bare, device.LevelTPMPub, "ekcert_missing"}} {
		_, err := j.Enroll(x.e)
		want(t, err, x.reason)
		if x.reason == "ekcert_missing" && !strings.Contains(fault.Of(err).Cause, hash) {
			t.Errorf("the refusal does not say what was seen: %q", fault.Of(err).Cause)
		}
		_, err = j.Approving(func(string) bool { return false }).Enroll(x.e)
		want(t, err, x.reason)
		c, err := j.Approving(func(h string) bool { return h == hash }).Enroll(x.e)
		if err != nil || c.Attestation != x.level || c.WouldRefuse != "" || c.EKCertSerial != "" { // nothing of what a stranger signed
			t.Errorf("%s approved: %s %q %v", name, c.Attestation, c.WouldRefuse, err)
		}
		c, err = j.Monitoring().Enroll(x.e)
		if err != nil || c.Attestation != x.level || c.WouldRefuse == "" {
			t.Errorf("%s monitored: %s %q %v", name, c.Attestation, c.WouldRefuse, err)
		}
	}
	cut := foreign
	cut.EKCert = cut.EKCert[:100]
	_, err = j.Monitoring().Approving(func(string) bool { return true }).Enroll(cut)
	want(t, err, "ekcert_malformed")
}
