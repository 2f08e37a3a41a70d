// Package ceremony is the device protocol: two step machines, Prover and Verifier, and the transcript that each
// signature of it covers.
//
//	device (Prover)                                   server (Verifier)
//	Hello      kind, claims, evidence        ------>
//	           <------  nonce, credential blob        Challenge
//	Proof      secret, signed transcript     ------>
//	Log …      the event log, with a quote   ------>
//	           <------  device, tag, credential       Welcome
//
// A message is at most 64 KiB: one byte of type, fixed bytes, then fields, each a big-endian uint16 length and that
// many bytes. All fields are there, those that say nothing are empty, and nothing follows the last.
//
//	Hello      01 version purpose  kind claims session_area token credential_id ek_name ek_cert ek_public key_area key
//	                               tpm_manufacturer tpm_firmware
//	Challenge  02 wants            nonce blob encrypted_secret
//	Proof      03                  secret statement signature quote quote_signature pcrs
//	Log        05 more             piece problem
//	Welcome    04                  device_id asset_tag credential_id level
//
// docs/protocol/device.md tells each field and has test vectors. The package reads no clock and opens nothing; each
// state is used once, and only a state gives the next, so that messages out of order cannot be taken.
package ceremony

import (
	"crypto/sha256"
	"encoding/binary"
	"io"

	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/fault"
)

// Label opens each transcript and names the protocol and its version.
const Label = "sallyport-device-v1"

// Version is the protocol's version as Hello carries it.
const Version = 1

// MaxMessage bounds every message.
const MaxMessage = 64 << 10

// Purpose says what a proof is good for.
type Purpose string

// The purposes.
const (
	Enroll  Purpose = "enroll"  // a new credential for a device
	Login   Purpose = "login"   // certificates with a new expiry
	Reissue Purpose = "reissue" // certificates with the same expiry and a device
)

// Binding is what both sides know apart from the messages, and every signature covers.
type Binding struct {
	Purpose    Purpose
	ClusterCA  []byte // SHA-256 of the TLS host authority's SPKI: the CA pin
	User       string
	Upgraded   []byte // SHA-256 of the DER certificate that is being upgraded; empty where there is none
	SessionKey []byte // SPKI DER of the key that certificates are asked for
}

// Digest is the transcript: SHA-256 over Label, purpose, cluster CA, user, fingerprint, session key and the messages
// so far, each behind its length as a big-endian uint32.
func (b Binding) Digest(messages ...[]byte) [sha256.Size]byte {
	return digest(append([][]byte{[]byte(Label), []byte(b.Purpose), b.ClusterCA, []byte(b.User), b.Upgraded, b.SessionKey}, messages...)...)
}

func digest(fields ...[]byte) [sha256.Size]byte {
	h := sha256.New()
	for _, f := range fields {
		var n [4]byte
		binary.BigEndian.PutUint32(n[:], uint32(len(f)))
		h.Write(n[:])
		h.Write(f)
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// BotLabel opens the transcript that the key of a bot without a device signs.
const BotLabel = "sallyport-bot-v1"

// BotDigest is that transcript: SHA-256 over BotLabel, cluster CA, user, session key, the bot's key and the server's
// nonce, each behind its length as a big-endian uint32.
func (b Binding) BotDigest(key, nonce []byte) [sha256.Size]byte {
	return digest([]byte(BotLabel), b.ClusterCA, []byte(b.User), b.SessionKey, key, nonce)
}

// check refuses bindings that leave out what a signature has to cover.
func (b Binding) check() error {
	switch {
	case b.Purpose.code() == 0:
		return bad("unknown purpose %q", b.Purpose)
	case len(b.ClusterCA) != sha256.Size:
		return bad("cluster CA hash has %d bytes", len(b.ClusterCA))
	case b.User == "":
		return bad("no user")
	case len(b.Upgraded) != 0 && len(b.Upgraded) != sha256.Size:
		return bad("certificate fingerprint has %d bytes", len(b.Upgraded))
	case len(b.SessionKey) == 0:
		return bad("no session key")
	}
	return nil
}

func (p Purpose) code() byte {
	switch p {
	case Enroll:
		return 1
	case Login:
		return 2
	case Reissue:
		return 3
	}
	return 0
}

// Key is the device key as the Prover uses it, for one session key; hwkey.Attestor is one.
type Key interface {
	// Evidence gives what Hello says of the hardware.
	Evidence() (device.Evidence, error)
	// Activate opens a credential (TPM2_ActivateCredential); only TPMs are asked.
	Activate(blob, encrypted []byte) (secret []byte, err error)
	// Prove signs the transcript, and quotes the machine's start where that is wanted.
	Prove(digest [sha256.Size]byte, quote bool) (device.Proof, error)
}

// Judge judges evidence for the Verifier; attestation.Judge is one.
type Judge interface {
	// Enroll judges the evidence of an enrollment and returns the credential that it becomes once it is proven:
	// kind, level, public key, AK area, EK hash and serial, TPM.
	Enroll(e device.Evidence) (device.Credential, error)
	// Protect wraps a secret so that only the TPM that holds both the EK and the AK of e gives it back
	// (TPM2_MakeCredential).
	Protect(rand io.Reader, e device.Evidence, secret []byte) (blob, encrypted []byte, err error)
	// Prove checks that the credential's device key vouches for the session key over the digest. A TPM's clock
	// figures come back, of other kinds nil.
	Prove(c device.Credential, s device.Session, digest [sha256.Size]byte, p device.Proof) (*device.Clock, error)
	// Quote checks a quote by the credential's AK over the digest.
	Quote(c device.Credential, digest [sha256.Size]byte, q device.Quote) error
}

// Welcome is what an accepted device is told.
type Welcome struct {
	DeviceID     string
	AssetTag     string
	CredentialID string
	Level        device.Level
}

// bad is a mistake of the caller's, not of the other side.
func bad(format string, args ...any) error {
	return fault.New(fault.Internal, "device ceremony: "+format, args...)
}

// malformed refuses a message; reason is for tests and audit.
func malformed(reason, format string, args ...any) error {
	return fault.New(fault.Invalid, "device message refused").WithReason(reason).WithCause(format, args...)
}

// outOfOrder refuses a state that was used before.
func outOfOrder(what string) error {
	return malformed("device_message_order", "%s came twice", what)
}
