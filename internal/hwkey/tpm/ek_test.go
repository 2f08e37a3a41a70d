package tpm

import (
	"bytes"
	"crypto/rand"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/sallyport/sallyport/internal/attestation"
	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/hwkey"
	"github.com/sallyport/sallyport/internal/swtpm"
)

// TestEndorsementKeys opens a credential with each endorsement key, made from its template and persistent.
func TestEndorsementKeys(t *testing.T) {
	fresh, made := swtpm.Start(t, swtpm.Options{}), swtpm.Start(t, swtpm.Options{EK: true})
	for _, e := range []*swtpm.Emulator{fresh, made} {
		for _, spec := range ekSpecs() {
			name := "made "
			if e == made {
				name = "persistent "
			}
			t.Run(name+string(spec.name), func(t *testing.T) {
				secret := []byte("0123456789abcdef0123456789abcdef")
				var got []byte
				before := e.Count(tpm2.TPMCCCreatePrimary)
				err := use(e.Socket, func(c *chip) error {
					_, pub, err := c.openEK(spec)
					if err != nil {
						return err
					}
					if made := e.Count(tpm2.TPMCCCreatePrimary) > before; made == (e != fresh && spec.name != device.EKP256) {
						t.Errorf("EK made: %v", made)
					}
					spki, err := ekPublic(pub)
					if err != nil {
						return err
					}
					if err := c.flush(object{handle: last(c)}); err != nil {
						return err
					}
					ak, err := c.create(template(true))
					if err != nil {
						return err
					}
					blob, enc, err := attestation.NewJudge(nil, false, time.Now()).Protect(rand.Reader, device.Evidence{
						Kind: device.TPM2, EKName: spec.name, EKPublic: spki, KeyArea: ak.Public}, secret)
					if err != nil {
						return err
					}
					o, err := c.load(ak)
					if err != nil {
						return err
					}
					got, err = c.activate(spec, o[0], blob, enc)
					return err
				})
				if err != nil || !bytes.Equal(got, secret) {
					t.Fatalf("%x, %v", got, err)
				}
				if n, err := e.Loaded(); n != 0 || err != nil {
					t.Errorf("left %d, %v", n, err)
				}
			})
		}
	}
}

// last is the newest object of an operation, 0 where it has none.
func last(c *chip) tpm2.TPMHandle {
	if len(c.loaded) == 0 {
		return 0
	}
	return c.loaded[len(c.loaded)-1]
}

// TestActivateLeavesNoSession has the TPM refuse a credential, and finds no session in it.
func TestActivateLeavesNoSession(t *testing.T) {
	e := swtpm.Start(t, swtpm.Options{})
	err := use(e.Socket, func(c *chip) error {
		ak, err := c.create(template(true))
		if err != nil {
			return err
		}
		o, err := c.load(ak)
		if err != nil {
			return err
		}
		_, err = c.activate(ekSpecs()[1], o[0], make([]byte, 68), make([]byte, 68))
		return err
	})
	if err == nil {
		t.Error("opened nonsense")
	}
	if n, err := e.Loaded(); n != 0 || err != nil {
		t.Errorf("left %d, %v", n, err)
	}
}

func FuzzLoad(f *testing.F) {
	pub := template(false)
	f.Add(tpm2.Marshal(pub))
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = Load(fileOf(b), "")
	})
}

func fileOf(area []byte) hwkey.File {
	return hwkey.File{Kind: device.TPM2, Public: area, Private: []byte{1}}
}

// TestStorageKey takes parents that the empty authorization cannot bring towards lockout.
func TestStorageKey(t *testing.T) {
	change := func(p tpm2.TPMTPublic, f func(*tpm2.TPMAObject)) *tpm2.TPMTPublic {
		f(&p.ObjectAttributes)
		return &p
	}
	for name, row := range map[string]struct {
		pub  *tpm2.TPMTPublic
		want bool
	}{
		"RSA-2048":           {change(tpm2.RSASRKTemplate, func(*tpm2.TPMAObject) {}), true},
		"P-256":              {change(tpm2.ECCSRKTemplate, func(*tpm2.TPMAObject) {}), true},
		"counts to lockout":  {change(tpm2.RSASRKTemplate, func(a *tpm2.TPMAObject) { a.NoDA = false }), false},
		"not restricted":     {change(tpm2.RSASRKTemplate, func(a *tpm2.TPMAObject) { a.Restricted = false }), false},
		"by policy":          {change(tpm2.ECCSRKTemplate, func(a *tpm2.TPMAObject) { a.UserWithAuth = false }), false},
		"a signing key":      {change(template(true), func(*tpm2.TPMAObject) {}), false},
		"an endorsement key": {change(tpm2.RSAEKTemplate, func(*tpm2.TPMAObject) {}), false},
	} {
		if storageKey(row.pub) != row.want {
			t.Errorf("%s: %v", name, !row.want)
		}
	}
}
