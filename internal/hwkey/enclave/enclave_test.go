//go:build linux

package enclave

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/sallyport/sallyport/internal/attestation"
	"github.com/sallyport/sallyport/internal/ceremony"
	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/hwkey"
	"github.com/sallyport/sallyport/internal/hwkey/software"
	"github.com/sallyport/sallyport/internal/standin"
)

// mac is a Mac with one TSH_HOME.
type mac struct {
	Device
	library *standin.Library
	home    string
}

func newMac(t *testing.T) *mac {
	t.Helper()
	l, home := standin.Start(t), t.TempDir()
	open := sync.OnceValues(func() (*security, error) { return load(l.Paths()) })
	return &mac{Device{filepath.Join(home, "device"), open}, l, home}
}

func (m *mac) session(t *testing.T) hwkey.Key {
	t.Helper()
	k, err := m.NewSession(filepath.Join(m.home, "alice.key"))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func verify(t *testing.T, k crypto.Signer) {
	t.Helper()
	sum := sha256.Sum256([]byte("hello"))
	sig, err := k.Sign(rand.Reader, sum[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	if !ecdsa.VerifyASN1(k.Public().(*ecdsa.PublicKey), sum[:], sig) {
		t.Error("the signature does not verify")
	}
}

var pin = sha256.Sum256([]byte("cluster authority"))

// run plays one ceremony.
func run(t *testing.T, p ceremony.Purpose, k hwkey.Key, a hwkey.Attestor, c *device.Credential) (ceremony.Result, error) {
	t.Helper()
	spki, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	b := ceremony.Binding{Purpose: p, ClusterCA: pin[:], User: "alice", SessionKey: spki}
	prover, err := ceremony.NewProver(b, a)
	if err != nil {
		return ceremony.Result{}, err
	}
	verifier, err := ceremony.NewVerifier(b, attestation.NewJudge(nil, false, time.Now()), rand.Reader)
	if err != nil {
		return ceremony.Result{}, err
	}
	in := ceremony.Introduction{Token: "token"}
	if p != ceremony.Enroll {
		in = ceremony.Introduction{CredentialID: c.ID}
	}
	hello, answer, err := prover.Hello(in)
	if err != nil {
		return ceremony.Result{}, err
	}
	_, await, err := verifier.Hello(hello)
	if err != nil {
		return ceremony.Result{}, err
	}
	challenge, last, err := await.Challenge(ceremony.Ask{Credential: c})
	if err != nil {
		return ceremony.Result{}, err
	}
	proof, _, err := answer.Proof(challenge)
	if err != nil {
		return ceremony.Result{}, err
	}
	r, _, err := last.Proof(proof[0])
	return r, err
}

func (m *mac) enroll(t *testing.T) device.Credential {
	t.Helper()
	k := m.session(t)
	a, err := m.Enroll(k)
	if err != nil {
		t.Fatal(err)
	}
	r, err := run(t, ceremony.Enroll, k, a, nil)
	if err != nil {
		t.Fatal(err)
	}
	c := r.Credential
	c.ID = "11111111-2222-3333-4444-555555555555"
	if c.Attestation != device.LevelEnclave || c.Kind != device.SecureEnclave {
		t.Errorf("level %s, kind %s", c.Attestation, c.Kind)
	}
	if err := a.Keep(hwkey.Enrollment{DeviceID: "d", AssetTag: "C02STANDIN1", CredentialID: c.ID, Level: c.Attestation}); err != nil {
		t.Fatal(err)
	}
	return c
}

func (m *mac) login(t *testing.T, c device.Credential) error {
	t.Helper()
	k, err := m.NewSession(filepath.Join(m.home, "alice.key.new"))
	if err != nil {
		return err
	}
	a, err := m.Login(k)
	if err != nil {
		return err
	}
	if _, err := run(t, ceremony.Login, k, a, &c); err != nil {
		return err
	}
	verify(t, k)
	return os.Rename(filepath.Join(m.home, "alice.key.new"), filepath.Join(m.home, "alice.key"))
}

// TestLifecycle enrolls, logs in and signs: with blobs, and with permanent keys where the system hands out none.
func TestLifecycle(t *testing.T) {
	for _, keychain := range []bool{false, true} {
		t.Run(fmt.Sprintf("keychain %v", keychain), func(t *testing.T) {
			m := newMac(t)
			if keychain {
				m.library.Entitle(true)
				m.library.Fail("no toid", "", 0)
			}
			c := m.enroll(t)
			for range 4 {
				if err := m.login(t, c); err != nil {
					t.Fatal(err)
				}
			}
			f, err := hwkey.ReadFile(filepath.Join(m.home, "alice.key"))
			if err != nil || (f.Parent == keychainParent) != keychain {
				t.Fatalf("%+v %v", f, err)
			}
			k, err := loadKey(f, m.open)
			if err != nil {
				t.Fatal(err)
			}
			verify(t, k)
			e, err := m.Enrollment()
			if err != nil || e.CredentialID != c.ID || e.Kind != device.SecureEnclave || m.Kind() != device.SecureEnclave {
				t.Error(e, err)
			}
			m.enroll(t) // again, over the first
			if err := m.login(t, c); !fault.Because(err, "device_signature") {
				t.Errorf("the old credential: %v", err)
			}
			if n := m.library.Keychain(); keychain && n > 4 || !keychain && n != 0 {
				t.Errorf("%d keys in the keychain", n)
			}
		})
	}
}

// TestA2_CopiedHome takes all files to another Mac.
func TestA2_CopiedHome(t *testing.T) {
	m := newMac(t)
	c := m.enroll(t)
	session, err := loadKey(read(t, m.home), m.open)
	if err != nil {
		t.Fatal(err)
	}
	m.library.Machine("another machine")
	sum := sha256.Sum256(nil)
	if _, err := session.Sign(nil, sum[:], crypto.SHA256); !fault.Because(err, "enclave_key") {
		t.Error(err)
	}
	if err := m.login(t, c); !fault.Because(err, "enclave_key") || fault.Of(err).Fix == "" {
		t.Error(err)
	}
	// A system that takes no notice of the blob makes a new key.
	m.library.Machine("a machine")
	m.library.Fail("forget toid", "", 0)
	if _, err := session.Sign(nil, sum[:], crypto.SHA256); !fault.Because(err, "enclave_key") {
		t.Errorf("a key that is not the file's signed: %v", err)
	}
	m.library.Fail("", "", 0)
	verify(t, session)
}

func read(t *testing.T, home string) hwkey.File {
	t.Helper()
	f, err := hwkey.ReadFile(filepath.Join(home, "alice.key"))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestFailures has each call fail, and looks for the reason.
func TestFailures(t *testing.T) {
	type row struct {
		call, domain string
		code         int
		want         string
	}
	making := []row{
		{"SecKeyCreateRandomKey", osStatus, -34018, "enclave_entitlements"},
		{"SecKeyCreateRandomKey", osStatus, -25308, "enclave_locked"},
		{"SecKeyCreateRandomKey", osStatus, -4, "enclave_missing"},
		{"SecKeyCreateRandomKey", tokens, -7, "enclave_missing"},
		{"SecKeyCreateRandomKey", tokens, -2, "enclave_failed"},
		{"SecKeyCreateRandomKey", "", 0, "enclave_failed"},
		{"SecAccessControlCreateWithFlags", osStatus, -50, "enclave_failed"},
		{"SecKeyCopyPublicKey", "", 0, "enclave_failed"},
		{"SecKeyCopyExternalRepresentation", osStatus, -4, "enclave_missing"},
		{"short point", "", 0, "enclave_failed"},
		{"CFStringCreateWithCString", "", 0, "enclave_failed"},
		{"CFDictionaryCreateMutable", "", 0, "enclave_failed"},
		{"no toid", "", 0, "enclave_entitlements"}, // then a permanent key, for which the program has no signature
		{"SecKeyCopyAttributes", "", 0, "enclave_entitlements"},
	}
	signing := []row{
		{"SecKeyCreateWithData", tokens, -3, "enclave_key"},
		{"SecKeyCreateWithData", tokens, -6, "enclave_key"},
		{"SecKeyCreateWithData", osStatus, -50, "enclave_failed"},
		{"SecKeyCreateWithData", "", 0, "enclave_failed"},
		{"SecKeyCreateSignature", tokens, -9, "enclave_locked"},
		{"SecKeyCreateSignature", osStatus, -25293, "enclave_locked"},
		{"SecKeyCreateSignature", osStatus, -34018, "enclave_entitlements"},
		{"SecKeyCreateSignature", "", 0, "enclave_failed"},
		{"SecKeyCopyPublicKey", "", 0, "enclave_failed"},
		{"CFDataCreate", "", 0, "enclave_failed"},
	}
	m := newMac(t)
	k := m.session(t)
	sum := sha256.Sum256(nil)
	for _, r := range making {
		m.library.Fail(r.call, r.domain, r.code)
		if _, err := m.NewSession(filepath.Join(m.home, "other.key")); !fault.Because(err, r.want) {
			t.Errorf("making, %s %s %d: %v, want %s", r.call, r.domain, r.code, err, r.want)
		}
		if _, err := m.Enroll(k); !fault.Because(err, r.want) {
			t.Errorf("enrolling, %s %s %d: %v, want %s", r.call, r.domain, r.code, err, r.want)
		}
	}
	if _, err := os.Stat(filepath.Join(m.home, "other.key")); err == nil {
		t.Error("a key that failed was written")
	}
	for _, r := range signing {
		m.library.Fail(r.call, r.domain, r.code)
		if sig, err := k.Sign(nil, sum[:], crypto.SHA256); !fault.Because(err, r.want) || sig != nil {
			t.Errorf("signing, %s %s %d: %v, want %s", r.call, r.domain, r.code, err, r.want)
		}
	}
	m.library.Fail("", "", 0)
	verify(t, k)
}

// TestEntitlements prints the guide's words for a program without signature.
func TestEntitlements(t *testing.T) {
	m := newMac(t)
	m.library.Fail("SecKeyCreateRandomKey", osStatus, -34018)
	_, err := m.NewSession(filepath.Join(m.home, "k"))
	if f := fault.Of(err); f == nil || f.Text != "binary missing signature or entitlements" || f.Fix == "" {
		t.Errorf("%+v", f)
	}
	m.library.Fail("", "", 0)
	m.library.Entitle(true)
	m.library.Fail("no toid", "", 0)
	k := m.session(t)
	for call, code := range map[string]int{"SecItemCopyMatching": -25300, "SecItemDelete": -25308} {
		m.library.Fail(call, osStatus, code)
		sum := sha256.Sum256(nil)
		want := map[string]string{"SecItemCopyMatching": "enclave_key", "SecItemDelete": "enclave_locked"}[call]
		if call == "SecItemCopyMatching" {
			_, err = k.Sign(nil, sum[:], crypto.SHA256)
		} else {
			m.library.Fail("no toid", "", 0)
			m.library.Entitle(false)
			want = "enclave_entitlements"
			_, err = m.NewSession(filepath.Join(m.home, "k"))
		}
		if !fault.Because(err, want) {
			t.Errorf("%s: %v, want %s", call, err, want)
		}
	}
}

// TestNoFramework names a Mac without the frameworks.
func TestNoFramework(t *testing.T) {
	l := standin.Start(t)
	none := l.Paths()
	none.Security = "/nowhere/Security"
	d := Device{t.TempDir(), func() (*security, error) { return load(none) }}
	if _, err := d.NewSession(filepath.Join(t.TempDir(), "k")); !fault.Because(err, "enclave_failed") {
		t.Error(err)
	}
}

// TestOtherKeys refuses keys and files that are not the enclave's.
func TestOtherKeys(t *testing.T) {
	m := newMac(t)
	k := m.session(t)
	if _, err := k.Sign(nil, make([]byte, 48), crypto.SHA384); err == nil {
		t.Error("signed a SHA-384 digest")
	}
	if _, err := k.Sign(nil, make([]byte, 20), crypto.SHA256); err == nil {
		t.Error("signed 20 bytes")
	}
	if k.Area() != nil || k.Kind() != device.SecureEnclave {
		t.Error("not an enclave's")
	}
	soft, err := software.NewKey(filepath.Join(m.home, "soft"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Enroll(soft); !fault.Because(err, "key_damaged") {
		t.Error(err)
	}
	if _, err := m.Login(k); !fault.Because(err, "device_key_not_found") {
		t.Error(err)
	}
	good := read(t, m.home)
	for name, change := range map[string]func(*hwkey.File){
		"kind":   func(f *hwkey.File) { f.Kind = device.Software },
		"public": func(f *hwkey.File) { f.Public = []byte{1} },
	} {
		f := good
		change(&f)
		if _, err := loadKey(f, m.open); !fault.Because(err, "key_damaged") {
			t.Errorf("%s: %v", name, err)
		}
	}
	bad := good
	bad.Parent = "elsewhere"
	other, err := loadKey(bad, m.open)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.Sign(nil, make([]byte, 32), crypto.SHA256); !fault.Because(err, "key_damaged") {
		t.Error(err)
	}
	a, err := m.Enroll(k)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Prove([32]byte{}, true); !fault.Because(err, "device_quote_unsupported") {
		t.Error(err)
	}
	if _, err := a.Activate(nil, nil); !fault.Because(err, "device_field") {
		t.Error(err)
	}
	if tag, err := m.Tag(); tag != "" || err != nil {
		t.Error(tag, err)
	}
}

// TestA6_OtherSigner proves with a key that is not the enrolled one.
func TestA6_OtherSigner(t *testing.T) {
	m := newMac(t)
	c := m.enroll(t)
	k := m.session(t)
	fresh, err := m.Enroll(k)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := run(t, ceremony.Login, k, imposter{fresh}, &c); !fault.Because(err, "device_signature") {
		t.Error(err)
	}
}

// imposter says nothing of its key.
type imposter struct{ hwkey.Attestor }

func (imposter) Evidence() (device.Evidence, error) {
	return device.Evidence{Kind: device.SecureEnclave}, nil
}

// TestConcurrent has many sign at once.
func TestConcurrent(t *testing.T) {
	m := newMac(t)
	k := m.session(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 20 {
				verify(t, k)
			}
		})
	}
	wg.Wait()
	if bytes.Equal(read(t, m.home).Private, nil) {
		t.Error("no blob")
	}
}

// TestExamine looks at an enclave that works, and at each thing that does not.
func TestExamine(t *testing.T) {
	m := newMac(t)
	want := func(name, reason string) {
		t.Helper()
		for _, f := range m.Examine() {
			if f.Name == name && fault.Because(f.Err, reason) && fault.Of(f.Err).Fix != "" {
				return
			}
		}
		t.Errorf("%s: not %s: %+v", name, reason, m.Examine())
	}
	want("device key", "device_key_not_found")
	m.enroll(t)
	for _, f := range m.Examine() {
		if f.Err != nil || f.Says == "" {
			t.Errorf("%+v", f)
		}
	}
	m.library.Machine("another machine")
	want("device key", "enclave_key")
	m.library.Fail("SecKeyCreateRandomKey", osStatus, -34018)
	want("new key", "enclave_entitlements")
	m.library.Fail("SecKeyCreateSignature", tokens, -9)
	want("signature", "enclave_locked")
	m.library.Entitle(true)
	m.library.Fail("no toid", "", 0)
	m.Examine()
	if n := m.library.Keychain(); n != 0 {
		t.Errorf("an examination left %d keys in the keychain", n)
	}
}
