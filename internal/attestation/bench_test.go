package attestation

import "testing"

// BenchmarkProve judges a recorded login proof.
func BenchmarkProve(b *testing.B) {
	r := recordings(b)[1]
	for b.Loop() {
		if err := r.prove(nil); err != nil {
			b.Fatal(err)
		}
	}
}
