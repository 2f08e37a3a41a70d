//go:build darwin || linux

package enclave

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"errors"
	"sync"

	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/framework"
	"github.com/sallyport/sallyport/internal/hwkey"
)

// security is the loaded Security framework.
type security struct {
	core *framework.Core
	name map[string]framework.Ref // its constants

	accessControl func(allocator uintptr, protection framework.Ref, flags uint, err *framework.Ref) framework.Ref
	createKey     func(attributes framework.Ref, err *framework.Ref) framework.Ref
	loadKey       func(data, attributes framework.Ref, err *framework.Ref) framework.Ref
	publicKey     func(key framework.Ref) framework.Ref
	export        func(key framework.Ref, err *framework.Ref) framework.Ref
	attributes    func(key framework.Ref) framework.Ref
	sign          func(key, algorithm, digest framework.Ref, err *framework.Ref) framework.Ref
	find          func(query framework.Ref, out *framework.Ref) int32
	remove        func(query framework.Ref) int32
}

// Of SecAccessControl.h, SecBase.h and TKError.h.
const (
	privateKeyUsage = 1 << 30 // kSecAccessControlPrivateKeyUsage: no finger and no password is asked for

	osStatus               = "NSOSStatusErrorDomain"
	missingEntitlement     = -34018
	itemNotFound           = -25300
	authFailed             = -25293
	interactionNotAllowed  = -25308
	errSecUnimplemented    = -4
	notAvailable           = -25291
	tokens                 = "CryptoTokenKit"
	tokenCorruptedData     = -3
	tokenAuthFailed        = -5
	tokenObjectNotFound    = -6
	tokenNotFound          = -7
	tokenAuthNeeded        = -9
	signatureAlgorithm     = "kSecKeyAlgorithmECDSASignatureDigestX962SHA256"
	protection             = "kSecAttrAccessibleAfterFirstUnlockThisDeviceOnly"
	tokenObjectID          = "toid" // kSecAttrTokenOID
	keychainParent         = "keychain"
	uncompressedPointBytes = 65
)

// load loads the framework from a place.
func load(at framework.Paths) (*security, error) {
	core, err := framework.OpenCore(at.CoreFoundation)
	if err != nil {
		return nil, hwkey.ErrEnclave.Wrapping(err).WithCause("%v", err)
	}
	l, err := framework.Open(at.Security)
	if err != nil {
		return nil, hwkey.ErrEnclave.Wrapping(err).WithCause("%v", err)
	}
	s := &security{core: core}
	err = l.Bind(map[string]any{
		"SecAccessControlCreateWithFlags": &s.accessControl, "SecKeyCreateRandomKey": &s.createKey, "SecKeyCreateWithData": &s.loadKey,
		"SecKeyCopyPublicKey": &s.publicKey, "SecKeyCopyExternalRepresentation": &s.export, "SecKeyCopyAttributes": &s.attributes,
		"SecKeyCreateSignature": &s.sign, "SecItemCopyMatching": &s.find, "SecItemDelete": &s.remove,
	})
	if err == nil {
		s.name, err = l.Constants("kSecClass", "kSecClassKey", "kSecReturnRef", "kSecUseDataProtectionKeychain", "kSecAttrLabel",
			"kSecAttrApplicationTag", "kSecAttrKeyClass", "kSecAttrKeyClassPrivate", "kSecAttrKeyType", "kSecAttrKeyTypeECSECPrimeRandom",
			"kSecAttrKeySizeInBits", "kSecAttrIsPermanent", "kSecAttrTokenID", "kSecAttrTokenIDSecureEnclave", "kSecAttrAccessControl",
			"kSecPrivateKeyAttrs", protection, signatureAlgorithm)
	}
	if err != nil {
		return nil, hwkey.ErrEnclave.Wrapping(err).WithCause("%v", err)
	}
	return s, nil
}

// system is macOS's own, loaded at the first use.
var system = sync.OnceValues(func() (*security, error) { return load(framework.System()) })

// named turns a framework's own words into faults that tell a person what happened.
func named(err error) error {
	var f *framework.Failure
	if err == nil || !errors.As(err, &f) {
		return err
	}
	as := func(e *fault.Error) error { return e.Wrapping(err).WithCause("%v", f) }
	switch f.Domain {
	case osStatus:
		switch f.Code {
		case missingEntitlement:
			return as(hwkey.ErrEntitlements)
		case itemNotFound:
			return as(hwkey.ErrEnclaveKey)
		case authFailed, interactionNotAllowed:
			return as(hwkey.ErrEnclaveLocked)
		case errSecUnimplemented, notAvailable:
			return as(hwkey.ErrNoEnclave)
		}
	case tokens:
		switch f.Code {
		case tokenCorruptedData, tokenObjectNotFound:
			return as(hwkey.ErrEnclaveKey)
		case tokenAuthFailed, tokenAuthNeeded:
			return as(hwkey.ErrEnclaveLocked)
		case tokenNotFound:
			return as(hwkey.ErrNoEnclave)
		}
	}
	return as(hwkey.ErrEnclave)
}

// status is the error of a call that answers with an OSStatus.
func status(call string, code int32) error {
	if code == 0 {
		return nil
	}
	return &framework.Failure{Call: call, Domain: osStatus, Code: int(code), Text: "OSStatus"}
}

// create makes a key: permanent in the keychain under a tag, or for this process alone where the tag is empty.
func (s *security) create(p *framework.Pool, tag string) (framework.Ref, error) {
	var failed framework.Ref
	access := p.Own(s.accessControl(0, s.name[protection], privateKeyUsage, &failed))
	if access == 0 {
		return 0, s.core.Fail("SecAccessControlCreateWithFlags", failed)
	}
	permanent := s.core.False
	private := []framework.Ref{s.name["kSecAttrAccessControl"], access}
	if tag != "" {
		permanent = s.core.True
		private = append(private, s.name["kSecAttrApplicationTag"], p.Bytes([]byte(tag)), s.name["kSecAttrLabel"], p.Text("Sallyport device trust"))
	}
	private = append(private, s.name["kSecAttrIsPermanent"], permanent)
	attributes := []framework.Ref{
		s.name["kSecAttrKeyType"], s.name["kSecAttrKeyTypeECSECPrimeRandom"],
		s.name["kSecAttrKeySizeInBits"], p.Number(256),
		s.name["kSecAttrTokenID"], s.name["kSecAttrTokenIDSecureEnclave"],
		s.name["kSecPrivateKeyAttrs"], p.Dictionary(private...),
	}
	if tag != "" {
		attributes = append(attributes, s.name["kSecUseDataProtectionKeychain"], s.core.True)
	}
	d := p.Dictionary(attributes...)
	if err := p.Err(); err != nil {
		return 0, err
	}
	k := p.Own(s.createKey(d, &failed))
	if k == 0 {
		return 0, s.core.Fail("SecKeyCreateRandomKey", failed)
	}
	return k, nil
}

// blob is a key as the enclave wrapped it; nil where the system does not hand it out.
func (s *security) blob(p *framework.Pool, k framework.Ref) ([]byte, error) {
	id := p.Text(tokenObjectID)
	if err := p.Err(); err != nil {
		return nil, err
	}
	attributes := p.Own(s.attributes(k))
	if attributes == 0 {
		return nil, nil
	}
	return s.core.Bytes(s.core.Value(attributes, id)), nil
}

// point is the public key of a private one.
func (s *security) point(p *framework.Pool, k framework.Ref) (*ecdsa.PublicKey, error) {
	public := p.Own(s.publicKey(k))
	if public == 0 {
		return nil, s.core.Fail("SecKeyCopyPublicKey", 0)
	}
	var failed framework.Ref
	data := p.Own(s.export(public, &failed))
	if data == 0 {
		return nil, s.core.Fail("SecKeyCopyExternalRepresentation", failed)
	}
	b := s.core.Bytes(data)
	if len(b) != uncompressedPointBytes {
		return nil, &framework.Failure{Call: "SecKeyCopyExternalRepresentation", Text: "it gave no P-256 point"}
	}
	return ecdsa.ParseUncompressedPublicKey(elliptic.P256(), b)
}

// unwrap gives the key of a blob.
func (s *security) unwrap(p *framework.Pool, blob []byte) (framework.Ref, error) {
	d := p.Dictionary(p.Text(tokenObjectID), p.Bytes(blob),
		s.name["kSecAttrKeyType"], s.name["kSecAttrKeyTypeECSECPrimeRandom"],
		s.name["kSecAttrKeyClass"], s.name["kSecAttrKeyClassPrivate"],
		s.name["kSecAttrTokenID"], s.name["kSecAttrTokenIDSecureEnclave"])
	empty := p.Bytes(nil)
	if err := p.Err(); err != nil {
		return 0, err
	}
	var failed framework.Ref
	k := p.Own(s.loadKey(empty, d, &failed))
	if k == 0 {
		return 0, s.core.Fail("SecKeyCreateWithData", failed)
	}
	return k, nil
}

// query names a permanent key.
func (s *security) query(p *framework.Pool, tag string, more ...framework.Ref) (framework.Ref, error) {
	d := p.Dictionary(append([]framework.Ref{s.name["kSecClass"], s.name["kSecClassKey"],
		s.name["kSecAttrApplicationTag"], p.Bytes([]byte(tag)), s.name["kSecUseDataProtectionKeychain"], s.core.True}, more...)...)
	return d, p.Err()
}

// lookup gives the permanent key of a tag.
func (s *security) lookup(p *framework.Pool, tag string) (framework.Ref, error) {
	q, err := s.query(p, tag, s.name["kSecReturnRef"], s.core.True)
	if err != nil {
		return 0, err
	}
	var k framework.Ref
	err = status("SecItemCopyMatching", s.find(q, &k))
	if err == nil && k == 0 {
		err = s.core.Fail("SecItemCopyMatching", 0)
	}
	return p.Own(k), err
}

// forget removes the permanent key of a tag, if there is one.
func (s *security) forget(p *framework.Pool, tag string) error {
	q, err := s.query(p, tag)
	if err != nil {
		return err
	}
	if code := s.remove(q); code != itemNotFound {
		return status("SecItemDelete", code)
	}
	return nil
}

// signature is an ASN.1 ECDSA signature of a SHA-256 digest.
func (s *security) signature(p *framework.Pool, k framework.Ref, digest []byte) ([]byte, error) {
	d := p.Bytes(digest)
	if err := p.Err(); err != nil {
		return nil, err
	}
	var failed framework.Ref
	sig := p.Own(s.sign(k, s.name[signatureAlgorithm], d, &failed))
	if sig == 0 {
		return nil, s.core.Fail("SecKeyCreateSignature", failed)
	}
	return s.core.Bytes(sig), nil
}
