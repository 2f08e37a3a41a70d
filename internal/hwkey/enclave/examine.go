//go:build darwin || linux

package enclave

import (
	"crypto"
	"crypto/sha256"

	"github.com/sallyport/sallyport/internal/framework"
	"github.com/sallyport/sallyport/internal/hwkey"
)

var _ hwkey.Examiner = Device{}

// Examine implements hwkey.Examiner. It makes one key, which is forgotten, and signs with it.
func (d Device) Examine() []hwkey.Finding {
	var found []hwkey.Finding
	add := func(name, says string, err error) bool {
		if err != nil {
			says = ""
		}
		found = append(found, hwkey.Finding{Name: name, Says: says, Err: err})
		return err == nil
	}
	if _, err := d.open(); !add("Secure Enclave", "its framework is there", err) {
		return found
	}
	f, err := d.open.make(d.path() + ".trial")
	says := "kept as a blob, without the keychain"
	if f.Parent == keychainParent {
		says = "kept in the keychain"
	}
	if !add("new key", says, err) {
		return found
	}
	sum := sha256.Sum256([]byte("trial"))
	k, err := loadKey(f, d.open)
	if err == nil {
		_, err = k.Sign(nil, sum[:], crypto.SHA256)
	}
	if f.Parent == keychainParent {
		_ = d.open.forget(string(f.Private))
	}
	if !add("signature", "by the new key", err) {
		return found
	}
	kept, err := d.kept()
	if err == nil {
		_, err = d.open.sign(kept, sum[:])
	}
	add("device key", "signs in this Mac's enclave", err)
	return found
}

// forget removes a permanent key.
func (o opener) forget(tag string) error {
	return o.use(func(s *security, p *framework.Pool) error { return s.forget(p, tag) })
}
