// Package hwkey is the platform's keys as the rest of tsh sees them: signers that cannot be copied away, and the
// evidence for it.
//
// A Device stands for this machine towards one cluster and keeps its state in one directory. Package hwkey/local opens
// the one of this platform; hwkey/tpm, hwkey/enclave and hwkey/software are the kinds.
package hwkey

import (
	"crypto"
	"crypto/sha256"

	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/fault"
)

// Key is a P-256 session key: the key of a user's certificates. Sign takes SHA-256 digests, gives ASN.1 ECDSA
// signatures, and opens its hardware for that long only.
type Key interface {
	crypto.Signer
	// Kind says where the key lives.
	Kind() device.Kind
	// Area is the TPMT_PUBLIC of a TPM's key, nil of other kinds.
	Area() []byte
}

// Device is this machine towards one cluster.
type Device interface {
	// Kind is the kind of evidence that this device gives.
	Kind() device.Kind
	// Tag is the asset tag that comes from the hardware where the machine says none, `ek-` and 16 hex digits of the EK
	// hash; "" where the kind has none.
	Tag() (string, error)
	// Enrollment is what was kept at the last enrollment; the fault ErrNotEnrolled where there was none.
	Enrollment() (Enrollment, error)
	// NewSession makes a session key beside the device key, and writes it to path (0600), over what was there.
	NewSession(path string) (Key, error)
	// Login gives the kept device key, to vouch for a session key of this device.
	Login(session Key) (Attestor, error)
	// Enroll gives a fresh device key; the kept one stays until Keep.
	Enroll(session Key) (Attestor, error)
}

// Attestor is a device key that vouches for one session key. It is a ceremony.Key.
type Attestor interface {
	// Evidence is what the first message says of the hardware.
	Evidence() (device.Evidence, error)
	// Activate opens a credential that was made for the EK and the device key; TPMs only.
	Activate(blob, encrypted []byte) ([]byte, error)
	// Prove vouches for the session key over a transcript's digest.
	Prove(digest [sha256.Size]byte, quote bool) (device.Proof, error)
	// Keep writes the device key with what the server called it, once it was welcomed.
	Keep(e Enrollment) error
}

// Enrollment is what the cluster calls this device and, of a TPM, what it was at that time: the hash of its endorsement
// key (EKHash, as device.Credential has it) and what it said of itself.
type Enrollment struct {
	Kind         device.Kind     `json:"kind"`
	DeviceID     string          `json:"device_id"`
	AssetTag     string          `json:"asset_tag"`
	CredentialID string          `json:"credential_id"`
	Level        device.Level    `json:"level"`
	EKHash       string          `json:"ek_hash,omitempty"`
	TPM          *device.TPMInfo `json:"tpm,omitempty"`
}

// The faults that people meet. What is returned is a copy that carries its cause: ask fault.Because(err, reason).
var (
	ErrNotEnrolled = fault.New(fault.NotFound, "device key not found, was the device enrolled?").
			WithReason("device_key_not_found").WithFix("tsh device enroll --current-device")
	ErrOpenTPM = fault.New(fault.Unavailable, "failed to open the TPM device").WithReason("tpm_open")
	ErrLockout = fault.New(fault.Unavailable, "the TPM is in lockout").WithReason("tpm_lockout").
			WithFix("wait, or ask an administrator to run: tpm2_dictionarylockout --clear-lockout")
	ErrCleared = fault.New(fault.Denied, "the TPM was cleared or replaced since enrollment").WithReason("tpm_cleared").
			WithFix("tsh device enroll --current-device")
	ErrBusy = fault.New(fault.Unavailable, "the TPM is busy with other programs").WithReason("tpm_busy").
		WithFix("wait a minute, then: tsh login")
	ErrMoved = fault.New(fault.Denied, "the device key is another machine's: the disk was moved, or the files were copied").
			WithReason("device_moved").WithFix("tsh device enroll --current-device")
	ErrTagChanged = fault.New(fault.Conflict, "this machine's asset tag is another than at its enrollment").WithReason("tag_changed").
			WithFix("ask a device admin: tctl devices accept --asset-tag=TAG")
	ErrFirmwareChanged = fault.New(fault.Conflict, "the TPM's firmware is another than at the enrollment").WithReason("tpm_firmware_changed").
				WithFix("tsh device enroll --current-device   (the cluster then knows the new one)")
	ErrNoParent = fault.New(fault.Unavailable, "the TPM has no storage key and its owner password is set").
			WithReason("tpm_owner_auth").
			WithFix("sudo tpm2_createprimary -C o -P OWNER-PASSWORD -G rsa2048 -c srk.ctx && sudo tpm2_evictcontrol -C o -P OWNER-PASSWORD -c srk.ctx 0x81000001")
	ErrEndorsement = fault.New(fault.Unavailable, "the TPM's endorsement password is set").
			WithReason("tpm_endorsement_auth").WithFix("sudo tpm2_changeauth -c endorsement -p PASSWORD")
	ErrNoEnclave = fault.New(fault.Unsupported, "this machine has no Secure Enclave").WithReason("enclave_missing").
			WithFix("ask an administrator to allow software keys, then: tsh device enroll --current-device")
	// ErrEntitlements is OSStatus -34018 of macOS.
	ErrEntitlements = fault.New(fault.Denied, "binary missing signature or entitlements").WithReason("enclave_entitlements").
			WithFix("install the signed tsh of your release, then: tsh device enroll --current-device")
	ErrEnclave    = fault.New(fault.Unavailable, "the Secure Enclave failed").WithReason("enclave_failed").WithFix("tsh device doctor")
	ErrEnclaveKey = fault.New(fault.Denied, "the device key is not of this Mac's Secure Enclave, or was made before the Mac was erased").
			WithReason("enclave_key").WithFix("tsh device enroll --current-device")
	ErrEnclaveLocked = fault.New(fault.Unavailable, "the Secure Enclave lets nobody use its keys before the Mac was unlocked once").
				WithReason("enclave_locked").WithFix("log in at the Mac itself once since it started, then: tsh login")
	ErrNoKey = fault.New(fault.NotFound, "key file not found, are you logged in?").WithReason("key_not_found").
			WithFix("tsh login")
	ErrBadKey = fault.New(fault.Invalid, "key file is damaged").WithReason("key_damaged").WithFix("tsh login")
)
