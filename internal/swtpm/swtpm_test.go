package swtpm

import (
	"encoding/pem"
	"testing"

	"github.com/google/go-tpm/tpm2"
)

func TestStart(t *testing.T) {
	for name, o := range map[string]Options{
		"fresh": {}, "EK": {EK: true}, "EK certificate": {EKCert: true}, "RSA parent, owner password": {PersistentRSAParent: true, OwnerAuth: "x"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := Start(t, o)
			c, err := dial(e.Socket)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := (tpm2.GetRandom{BytesRequested: 4}).Execute(c); err != nil {
				t.Fatal(err)
			}
			_ = c.Close()
			if n := e.Count(tpm2.TPMCCGetRandom); n != 1 {
				t.Errorf("counted %d commands, want 1", n)
			}
			if n, err := e.Loaded(); n != 0 || err != nil {
				t.Errorf("left %d objects, %v", n, err)
			}
			if o.EKCert {
				b, err := e.CA.PEM()
				if err != nil {
					t.Fatal(err)
				}
				first, rest := pem.Decode(b)
				second, _ := pem.Decode(rest)
				if first == nil || second == nil {
					t.Errorf("want root and intermediate, got %s", b)
				}
			}
		})
	}
}
