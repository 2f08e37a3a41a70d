// Package tpm keeps device and session keys in a TPM 2.0.
//
// Keys are blobs in files that only this TPM can load. Each operation opens the TPM, loads what it needs, and flushes
// it: a TPM has three object slots and other users. Nothing persistent is made in it.
package tpm

import (
	"crypto/sha256"
	"fmt"
	"slices"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/hwkey"
	"github.com/sallyport/sallyport/internal/hwkey/platform"
)

type tpmTransport = transport.TPM

// Device is this machine's TPM towards one cluster.
type Device struct {
	dir  string // where the device key is kept
	path string // of the TPM; "" is the platform's own

	unattended bool // nobody is there to consent to anything
}

var _ hwkey.Device = (*Device)(nil)

// Open gives the device that keeps its key in dir. The TPM at path (a device file or an emulator's socket, "" for the
// platform's own) is opened when it is needed.
func Open(dir, path string) *Device { return &Device{dir: dir, path: path} }

// Unattended is the same device with nobody there to consent: what the platform keeps to administrators fails.
func (d *Device) Unattended() *Device {
	c := *d
	c.unattended = true
	return &c
}

// Kind is device.TPM2.
func (*Device) Kind() device.Kind { return device.TPM2 }

// Enrollment implements hwkey.Device.
func (d *Device) Enrollment() (hwkey.Enrollment, error) {
	f, err := d.kept()
	if err != nil {
		return hwkey.Enrollment{}, err
	}
	return *f.Enrollment, nil
}

func (d *Device) kept() (hwkey.File, error) { return hwkey.ReadDeviceOf(d.dir, device.TPM2) }

// template is of both kinds of keys: P-256, ECDSA with SHA-256, bound to this TPM, no authorization. The AK is
// restricted: it signs nothing but the TPM's own statements.
func template(restricted bool) tpm2.TPMTPublic {
	return tpm2.TPMTPublic{
		Type:    tpm2.TPMAlgECC,
		NameAlg: tpm2.TPMAlgSHA256,
		ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, SensitiveDataOrigin: true, UserWithAuth: true,
			NoDA: true, Restricted: restricted, SignEncrypt: true},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgECC, &tpm2.TPMSECCParms{
			Scheme: tpm2.TPMTECCScheme{Scheme: tpm2.TPMAlgECDSA,
				Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgECDSA, &tpm2.TPMSSigSchemeECDSA{HashAlg: tpm2.TPMAlgSHA256})},
			CurveID: tpm2.TPMECCNistP256,
		}),
		Unique: tpm2.NewTPMUPublicID(tpm2.TPMAlgECC, &tpm2.TPMSECCPoint{}),
	}
}

// NewSession implements hwkey.Device.
func (d *Device) NewSession(path string) (hwkey.Key, error) {
	var f hwkey.File
	err := use(d.path, func(c *chip) (err error) {
		f, err = c.create(template(false))
		return err
	})
	if err != nil {
		return nil, err
	}
	k, err := Load(f, d.path)
	if err != nil {
		return nil, err
	}
	return k, hwkey.WriteFile(path, f)
}

// Login implements hwkey.Device.
func (d *Device) Login(session hwkey.Key) (hwkey.Attestor, error) {
	f, err := d.kept()
	if err != nil {
		return nil, err
	}
	return d.attestor(session, f, false)
}

// Enroll implements hwkey.Device.
func (d *Device) Enroll(session hwkey.Key) (hwkey.Attestor, error) {
	var f hwkey.File
	err := use(d.path, func(c *chip) (err error) {
		f, err = c.create(template(true))
		return err
	})
	if err != nil {
		return nil, err
	}
	return d.attestor(session, f, true)
}

func (d *Device) attestor(session hwkey.Key, ak hwkey.File, fresh bool) (hwkey.Attestor, error) {
	s, ok := session.(*key)
	if !ok {
		return nil, hwkey.ErrBadKey.WithCause("the session key is no key of the TPM")
	}
	return &attestor{device: d, session: s.file, ak: ak, fresh: fresh}, nil
}

// attestor is the AK for one session key, fresh in an enrollment.
type attestor struct {
	device  *Device
	session hwkey.File
	ak      hwkey.File
	fresh   bool
	ek      ekSpec // chosen by Evidence
	found   device.Evidence
}

// Evidence implements hwkey.Attestor. A login opens no TPM for it.
func (a *attestor) Evidence() (device.Evidence, error) {
	e := device.Evidence{Kind: device.TPM2, SessionArea: a.session.Public}
	if !a.fresh {
		return e, nil
	}
	e.KeyArea = a.ak.Public
	err := use(a.device.path, func(c *chip) (err error) {
		if a.ek, e.EKCert, err = c.chooseEK(); err != nil {
			return err
		}
		e.EKName = a.ek.name
		if e.TPM, err = c.info(); err != nil {
			return err
		}
		if e.EKCert != nil {
			return nil
		}
		_, pub, err := c.openEK(a.ek)
		if err == nil {
			e.EKPublic, err = ekPublic(pub)
		}
		return err
	})
	a.found = e
	return e, err
}

// selection selects PCRs of the SHA-256 bank.
func selection(pcrs []int) tpm2.TPMLPCRSelection {
	var list []uint
	for _, p := range pcrs {
		list = append(list, uint(p))
	}
	return tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{
		{Hash: tpm2.TPMAlgSHA256, PCRSelect: tpm2.PCClientCompatible.PCRs(list...)}}}
}

// Prove implements hwkey.Attestor: one TPM2_Certify of the session key by the AK.
func (a *attestor) Prove(digest [sha256.Size]byte, quote bool) (p device.Proof, err error) {
	err = use(a.device.path, func(c *chip) error {
		keys, err := c.load(a.ak, a.session)
		if err != nil {
			return err
		}
		ak, session := keys[0], keys[1]
		rsp, err := tpm2.Certify{
			ObjectHandle:   session.auth(),
			SignHandle:     ak.auth(),
			QualifyingData: tpm2.TPM2BData{Buffer: digest[:]},
			InScheme:       tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull},
		}.Execute(c)
		if err != nil {
			return fmt.Errorf("certify session key: %w", err)
		}
		p = device.Proof{Statement: rsp.CertifyInfo.Bytes(), Signature: tpm2.Marshal(rsp.Signature)}
		if quote {
			p.Quote, err = c.quote(ak, digest)
		}
		return err
	})
	if p.Quote != nil && p.Quote.NoLog == "" && err == nil {
		p.Quote.Log, p.Quote.NoLog = platform.BootLog()
	}
	return p, a.device.why(err, a.ak.Enrollment)
}

// hasSHA256 reports whether the TPM keeps the PCRs that are quoted.
func (c *chip) hasSHA256() bool {
	rsp, err := tpm2.PCRRead{PCRSelectionIn: selection(device.QuotedPCRs[:1])}.Execute(c)
	return err != nil || len(rsp.PCRValues.Digests) == 1
}

// quote has the AK sign the PCRs, and reads them. Should one be extended in between, the server sees that they differ.
func (c *chip) quote(ak object, digest [sha256.Size]byte) (*device.Quote, error) {
	if !c.hasSHA256() {
		return &device.Quote{NoLog: "the TPM keeps no SHA-256 PCRs: switch that bank on in the firmware's setup"}, nil
	}
	rsp, err := tpm2.Quote{
		SignHandle:     ak.auth(),
		QualifyingData: tpm2.TPM2BData{Buffer: digest[:]},
		InScheme:       tpm2.TPMTSigScheme{Scheme: tpm2.TPMAlgNull},
		PCRSelect:      selection(device.QuotedPCRs),
	}.Execute(c)
	if err != nil {
		return nil, fmt.Errorf("quote: %w", err)
	}
	q := &device.Quote{Statement: rsp.Quoted.Bytes(), Signature: tpm2.Marshal(rsp.Signature)}
	for some := range slices.Chunk(device.QuotedPCRs, 8) { // one answer holds eight (TPM 2.0 Part 2, 10.9.6)
		pcrs, err := tpm2.PCRRead{PCRSelectionIn: selection(some)}.Execute(c)
		if err != nil {
			return nil, fmt.Errorf("read PCRs: %w", err)
		}
		for _, d := range pcrs.PCRValues.Digests {
			q.PCRs = append(q.PCRs, d.Buffer...)
		}
	}
	return q, nil
}

// Keep implements hwkey.Attestor.
func (a *attestor) Keep(e hwkey.Enrollment) error {
	e.Kind, e.TPM = device.TPM2, a.found.TPM
	if spki := certified(a.found.EKCert); spki != nil {
		e.EKHash = hash(spki)
	} else if a.found.EKPublic != nil {
		e.EKHash = hash(a.found.EKPublic)
	}
	a.ak.Enrollment = &e
	return hwkey.WriteFile(devicePath(a.device.dir), a.ak)
}
