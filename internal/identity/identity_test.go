package identity

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"flag"
	"math/big"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/sallyport/sallyport/internal/device"
)

var update = flag.Bool("update", false, "write the test vectors anew")

var issued = time.Date(2026, 11, 22, 10, 40, 36, 831747310, time.UTC)

func alice() *User {
	return &User{Name: "alice", Cluster: "example.com", Kind: Human, Roles: []string{"access", "require-trusted-device"},
		Traits: map[string][]string{"logins": {"root", "ubuntu"}}, KeyPolicy: KeyHardware, Grant: Grant{PTY: true, PortForwarding: true},
		Device: &Device{ID: "3dce29fc-88f6-4852-9bc1-23d797c59d72", AssetTag: "C00AA0AAAA0A", CredentialID: "cc42f454-f827-4f3a-a541-54fddf81d99c",
			Level: device.LevelTPMTrusted, OS: device.Linux, Claims: device.Claims{OSVersion: "12"}},
		LoginIP: netip.MustParseAddr("203.0.113.7"), MFADevice: "0d7c3f0e-6a0b-4f5e-9d8e-3f8f6a2b1c00", Validity: Validity{Serial: "7", IssuedAt: issued, Expires: issued.Truncate(time.Second).Add(12 * time.Hour)}}
}

func sshCert(t testing.TB, u *User, edit func(*ssh.Certificate)) *ssh.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	public, err := ssh.NewPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	perms, err := u.SSHPermissions()
	if err != nil {
		t.Fatal(err)
	}
	c := &ssh.Certificate{Key: public, Serial: 7, CertType: ssh.UserCert, KeyId: u.Name, ValidPrincipals: []string{"root"}, Permissions: perms,
		ValidAfter: uint64(issued.Add(-Backdate).Unix()), ValidBefore: uint64(u.Validity.Expires.Unix())}
	if edit != nil {
		edit(c)
	}
	signer, err := ssh.NewSignerFromSigner(key)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.SignCert(rand.Reader, signer); err != nil {
		t.Fatal(err)
	}
	return c
}

func x509Cert(t testing.TB, fill func(*x509.Certificate) error, edit func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(7), NotBefore: issued.Add(-Backdate), NotAfter: issued.Truncate(time.Second).Add(12 * time.Hour), BasicConstraintsValid: true}
	if err := fill(c); err != nil {
		t.Fatal(err)
	}
	if edit != nil {
		edit(c)
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

func TestRoundTrips(t *testing.T) {
	u := alice()
	pinned := alice()
	pinned.PinnedIP = netip.MustParseAddr("2001:db8::1")
	plain := alice()
	plain.Device, plain.KeyPolicy = nil, KeyAnywhere
	for _, want := range []*User{u, pinned, plain} {
		got, err := FromSSH(sshCert(t, want, nil))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("%v\n%+v\n%+v", err, got, want)
		}
		got, err = FromX509(x509Cert(t, want.X509, nil))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("%v\n%+v\n%+v", err, got, want)
		}
	}
	h := Host{ID: "5d6f4636-95c8-46b0-9361-1b35ddb00f2b", Role: RoleNode, Name: "web", Cluster: "example.com"}
	got, err := HostFromX509(x509Cert(t, h.X509, nil))
	if err != nil || *got != h {
		t.Fatalf("%+v %v", got, err)
	}
}

func TestExtensionsInTheGuidesOrder(t *testing.T) {
	u := alice()
	u.Grant.AgentForwarding = true
	want := "login-ip, permit-agent-forwarding, permit-port-forwarding, permit-pty, private-key-policy, teleport-device-asset-tag, teleport-device-credential-id, teleport-device-id"
	if got := strings.Join(u.Extensions(), ", "); got != want {
		t.Fatal(got)
	}
}

// TestA2xSSH are user certificates that say what no certificate of ours says.
func TestA2xSSH(t *testing.T) {
	swap := func(old, fresh string) func(*ssh.Certificate) {
		return func(c *ssh.Certificate) {
			c.Extensions[ExtIdentity] = strings.Replace(c.Extensions[ExtIdentity], old, fresh, 1)
		}
	}
	for _, c := range []struct {
		name string
		edit func(*ssh.Certificate)
		want string
	}{
		{"A21 a host certificate", func(c *ssh.Certificate) { c.CertType = ssh.HostCert }, "not a user certificate"},
		{"A24 no principals", func(c *ssh.Certificate) { c.ValidPrincipals = nil }, "without principals"},
		{"A24 a comma", func(c *ssh.Certificate) { c.ValidPrincipals = []string{"root,admin"} }, "a principal"},
		{"A24 a space", func(c *ssh.Certificate) { c.ValidPrincipals = []string{"ro ot"} }, "a principal"},
		{"A24 NUL", func(c *ssh.Certificate) { c.ValidPrincipals = []string{"root\x00"} }, "a principal"},
		{"A24 a newline", func(c *ssh.Certificate) { c.ValidPrincipals = []string{"root\n"} }, "a principal"},
		{"A24 a look-alike letter", func(c *ssh.Certificate) { c.ValidPrincipals = []string{"rооt"} }, "a principal"},
		{"A24 an empty one", func(c *ssh.Certificate) { c.ValidPrincipals = []string{""} }, "a principal"},
		{"A24 a user name with a newline", func(c *ssh.Certificate) { c.KeyId = "alice\nroot" }, "user name"},
		{"A25 an unknown critical option", func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{"force-command": "x"} }, `unknown critical option "force-command"`},
		{"A26 no end", func(c *ssh.Certificate) { c.ValidBefore = ssh.CertTimeInfinity }, "without an end"},
		{"no identity", func(c *ssh.Certificate) { delete(c.Extensions, ExtIdentity) }, "identity attributes"},
		{"an unknown field", swap(`"v":1`, `"v":1,"admin":true`), "unknown field"},
		{"another version", swap(`"v":1`, `"v":2`), "version 2"},
		{"an unknown kind", swap(`"human"`, `"superhuman"`), "unknown user kind"},
		{"an unknown level", swap(`tpm_ekcert_trusted`, `quantum`), "unknown device level"},
		{"a policy that does not fit", swap(`hardware_key`, `none`), "key policy none"},
		{"a device in the attributes alone", func(c *ssh.Certificate) { delete(c.Extensions, ExtDeviceID) }, "teleport-device-id does not agree"},
		{"another device beside", func(c *ssh.Certificate) { c.Extensions[ExtDeviceTag] = "OTHER" }, "teleport-device-asset-tag does not agree"},
		{"a right in the name alone", func(c *ssh.Certificate) { c.Extensions[extAgent] = "" }, "permit-agent-forwarding does not agree"},
		{"an address in the option alone", func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{optSourceAddress: "1.2.3.4/32"} }, "source-address does not agree"},
		{"another serial number beside", func(c *ssh.Certificate) { c.Serial = 8 }, "serial number does not agree"},
		{"a serial number that is none", swap(`"serial":"7"`, `"serial":"-7"`), "serial number that is none"},
		{"a second factor with a comma", swap(`"mfa_device":"`, `"mfa_device":"a,`), "second factor"},
		{"a role with a comma", swap(`"access"`, `"a,b"`), "role name"},
		{"data behind", func(c *ssh.Certificate) { c.Extensions[ExtIdentity] += "{}" }, "data behind the end"},
		{"too large", func(c *ssh.Certificate) { c.Extensions[ExtIdentity] += strings.Repeat(" ", maxAttributes) }, "too large"},
	} {
		t.Run(c.name, func(t *testing.T) {
			u, err := FromSSH(sshCert(t, alice(), c.edit))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %+v %v, want %s", u, err, c.want)
			}
		})
	}
}

// TestA20X509 are X.509 certificates that are not what they are used as.
func TestA20X509(t *testing.T) {
	u, h := alice(), Host{ID: "id", Role: RoleNode, Cluster: "example.com"}
	ca := func(c *x509.Certificate) { c.IsCA = true }
	if _, err := FromX509(x509Cert(t, u.X509, ca)); err == nil {
		t.Error("A20: an authority is taken for a user")
	}
	if _, err := HostFromX509(x509Cert(t, h.X509, ca)); err == nil {
		t.Error("A20: an authority is taken for a host")
	}
	if _, err := HostFromX509(x509Cert(t, u.X509, nil)); err == nil {
		t.Error("A21: a user is taken for a host")
	}
	if _, err := FromX509(x509Cert(t, h.X509, nil)); err == nil {
		t.Error("A21: a host is taken for a user")
	}
	if _, err := FromX509(x509Cert(t, u.X509, func(c *x509.Certificate) { c.Subject.ExtraNames = c.Subject.ExtraNames[:2] })); err == nil {
		t.Error("two of three device attributes are taken")
	}
	if _, err := FromX509(x509Cert(t, u.X509, func(c *x509.Certificate) {
		c.Subject.ExtraNames[1] = pkix.AttributeTypeAndValue{Type: OIDDeviceTag, Value: "OTHER"}
	})); err == nil {
		t.Error("a device that does not agree is taken")
	}
}

func TestUnfitIsNotIssued(t *testing.T) {
	for name, edit := range map[string]func(*User){
		"no name": func(u *User) { u.Name = "" }, "no cluster": func(u *User) { u.Cluster = "" }, "no kind": func(u *User) { u.Kind = "" },
		"hardware without device": func(u *User) { u.Device = nil }, "no time": func(u *User) { u.Validity.IssuedAt = time.Time{} },
		"half a device": func(u *User) { u.Device.CredentialID = "" }, "software as hardware": func(u *User) { u.Device.Level = device.LevelSoftware },
	} {
		u := alice()
		edit(u)
		if _, err := u.SSHPermissions(); err == nil {
			t.Errorf("%s: SSH", name)
		}
		if err := u.X509(&x509.Certificate{}); err == nil {
			t.Errorf("%s: X.509", name)
		}
	}
}

func TestTicket(t *testing.T) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	printed, err := SignTicket(private, "alice", issued.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := VerifyTicket(public, printed, issued); err != nil || got.User != "alice" || len(got.Nonce) != 16 {
		t.Fatalf("%+v %v", got, err)
	}
	other, _, _ := ed25519.GenerateKey(rand.Reader)
	for name, c := range map[string]struct {
		key     ed25519.PublicKey
		printed string
		now     time.Time
	}{
		"over": {public, printed, issued.Add(time.Hour)}, "another authority": {other, printed, issued}, "no authority": {nil, printed, issued},
		"no signature": {public, strings.SplitN(printed, ".", 2)[0], issued}, "damaged": {public, "x" + printed, issued},
		"too large": {public, strings.Repeat("x", maxTicket+1), issued},
	} {
		if _, err := VerifyTicket(c.key, c.printed, c.now); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

// TestVectors reads the certificates in testdata, which strangers can read too.
func TestVectors(t *testing.T) {
	dir := "testdata"
	h := Host{ID: "5d6f4636-95c8-46b0-9361-1b35ddb00f2b", Role: RoleNode, Name: "web", Cluster: "example.com"}
	if *update {
		write := func(name string, b []byte) {
			if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		write("user-cert.pub", ssh.MarshalAuthorizedKey(sshCert(t, alice(), nil)))
		write("user-cert.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: x509Cert(t, alice().X509, nil).Raw}))
		write("host-cert.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: x509Cert(t, h.X509, nil).Raw}))
		_, private, _ := ed25519.GenerateKey(rand.Reader)
		ticket, err := SignTicket(private, "alice", issued.Add(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		raw, err := json.MarshalIndent(map[string]any{"public_key": private.Public(), "ticket": ticket}, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		write("ticket.json", append(raw, '\n'))
	}
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey(read("user-cert.pub"))
	if err != nil {
		t.Fatal(err)
	}
	if u, err := FromSSH(key.(*ssh.Certificate)); err != nil || !reflect.DeepEqual(u, alice()) {
		t.Fatalf("%+v %v", u, err)
	}
	parse := func(name string) *x509.Certificate {
		b, _ := pem.Decode(read(name))
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	if u, err := FromX509(parse("user-cert.pem")); err != nil || !reflect.DeepEqual(u, alice()) {
		t.Fatalf("%+v %v", u, err)
	}
	if got, err := HostFromX509(parse("host-cert.pem")); err != nil || *got != h {
		t.Fatalf("%+v %v", got, err)
	}
	var v struct {
		PublicKey ed25519.PublicKey `json:"public_key"`
		Ticket    string            `json:"ticket"`
	}
	if err := json.Unmarshal(read("ticket.json"), &v); err != nil {
		t.Fatal(err)
	}
	if got, err := VerifyTicket(v.PublicKey, v.Ticket, issued); err != nil || got.User != "alice" {
		t.Fatalf("%+v %v", got, err)
	}
}

func FuzzAttributes(f *testing.F) {
	raw, err := alice().attributes()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte(`{"v":1}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		u := &User{Name: "alice"}
		if parseAttributes(raw, u) == nil {
			if _, err := u.attributes(); err != nil {
				t.Fatal(err)
			}
		}
		_, _ = parseHostAttributes(raw)
	})
}

func FuzzTicket(f *testing.F) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	printed, _ := SignTicket(private, "alice", issued.Add(time.Hour))
	f.Add(printed)
	f.Add("a.b")
	f.Fuzz(func(t *testing.T, s string) {
		if got, err := VerifyTicket(public, s, issued); err == nil && got.User != "alice" {
			t.Fatal("a ticket that nobody signed")
		}
	})
}
