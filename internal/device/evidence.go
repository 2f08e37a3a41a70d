package device

// Evidence is what a device sends about its hardware. An enrollment brings all that its kind has, a login the session
// area alone. It travels in the device protocol's Hello; nothing in it is believed before a judge looked at it.
type Evidence struct {
	Kind        Kind
	EKName      EKName   // tpm2, enrollment: which endorsement key
	EKCert      []byte   // tpm2, enrollment: its certificate as read from NV, padding included; else
	EKPublic    []byte   // its SPKI DER
	KeyArea     []byte   // tpm2, enrollment: TPMT_PUBLIC of the AK
	Key         []byte   // other kinds, enrollment: SPKI DER of the device key
	SessionArea []byte   // tpm2: TPMT_PUBLIC of the session key
	TPM         *TPMInfo // tpm2, enrollment, asserted
}

// EKName names an endorsement key by its algorithm. The template and the cipher of credentials follow from it.
type EKName string

// The endorsement keys that are known, with the names of their templates in the TCG EK Credential Profile.
const (
	EKRSA2048 EKName = "rsa2048" // L-1
	EKP256    EKName = "p256"    // L-2
	EKP384    EKName = "p384"    // H-3
)

// Session is the session key that a proof is to vouch for: its SPKI DER and, of a TPM, its TPMT_PUBLIC.
type Session struct {
	Key  []byte
	Area []byte
}

// Proof is the device key's word on a transcript. Of a TPM, Statement is the TPMS_ATTEST of TPM2_Certify over the
// session key and Signature a TPMT_SIGNATURE; of other kinds Statement is empty and Signature the ASN.1 ECDSA
// signature of the digest itself.
type Proof struct {
	Statement []byte
	Signature []byte
	Quote     *Quote
}

// Quote is the state of a machine's start: a TPMS_ATTEST of TPM2_Quote, its TPMT_SIGNATURE, and the values of
// QuotedPCRs. Log is the event log of the start, or NoLog says why there is none.
type Quote struct {
	Statement []byte
	Signature []byte
	PCRs      []byte
	Log       []byte
	NoLog     string
}

// QuotedPCRs are the SHA-256 PCRs that are quoted, in order: 0 to 7 are the firmware's and the boot manager's, 8 and 9
// the boot loader's, 14 shim's. What the running system extends (10 to 13, 15) is left out: no log would replay to it.
var QuotedPCRs = []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 14}

// MaxEventLog is the longest event log that travels.
const MaxEventLog = 1 << 20
