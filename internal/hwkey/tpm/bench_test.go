package tpm_test

import (
	"crypto"
	"crypto/sha256"
	"path/filepath"
	"testing"

	"github.com/sallyport/sallyport/internal/hwkey/tpm"
	"github.com/sallyport/sallyport/internal/swtpm"
)

// BenchmarkSign is one session signature: open, storage primary, load, sign, flush, close.
func BenchmarkSign(b *testing.B) {
	for name, o := range map[string]swtpm.Options{"storage primary": {}, "persistent RSA parent": {PersistentRSAParent: true}} {
		b.Run(name, func(b *testing.B) {
			e := swtpm.Start(b, o)
			k, err := tpm.Open(b.TempDir(), e.Direct()).NewSession(filepath.Join(b.TempDir(), "k"))
			if err != nil {
				b.Fatal(err)
			}
			sum := sha256.Sum256(nil)
			for b.Loop() {
				if _, err := k.Sign(nil, sum[:], crypto.SHA256); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
