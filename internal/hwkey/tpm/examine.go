package tpm

import (
	"crypto/x509"
	"fmt"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/fault"
	"github.com/sallyport/sallyport/internal/hwkey"
	"github.com/sallyport/sallyport/internal/hwkey/platform"
)

var _ hwkey.Examiner = (*Device)(nil)

// Bits of TPMA_PERMANENT (TPM 2.0 Part 2, 8.6).
const (
	ownerAuthSet       = 1 << 0
	endorsementAuthSet = 1 << 1
	inLockout          = 1 << 9
)

// Examine implements hwkey.Examiner. It makes one key, which is forgotten, and no endorsement key.
func (d *Device) Examine() []hwkey.Finding {
	x := &examination{device: d}
	err := use(d.path, func(c *chip) error {
		x.chip = c
		for _, step := range []func() bool{x.answers, x.lockout, x.endorsement, x.storage, x.trial, x.enrolled} {
			if !step() {
				break
			}
		}
		return nil
	})
	if err != nil {
		x.add("TPM", "", err)
	}
	log, problem := platform.BootLog()
	if len(x.found) > 1 || err == nil {
		f := hwkey.Finding{Name: "event log", Says: fmt.Sprintf("%d bytes", len(log)), Minor: true}
		if problem != "" {
			f.Says, f.Err = "", platform.ErrNoEventLog.WithCause("%s", problem)
		}
		x.found = append(x.found, f)
	}
	return x.found
}

// examination is one look at a TPM. Each step says whether the next makes sense.
type examination struct {
	device *Device
	chip   *chip
	info   *device.TPMInfo
	found  []hwkey.Finding
}

func (x *examination) add(name, says string, err error) bool {
	if err != nil {
		says = ""
	}
	x.found = append(x.found, hwkey.Finding{Name: name, Says: says, Err: named(err)})
	return err == nil
}

func (x *examination) minor(name string, err error) {
	x.found = append(x.found, hwkey.Finding{Name: name, Err: named(err), Minor: true})
}

// answers asks for maker and firmware.
func (x *examination) answers() bool {
	info, err := x.chip.info()
	if err != nil {
		return x.add("TPM", "", err)
	}
	x.info = info
	return x.add("TPM", fmt.Sprintf("%s, firmware %s", info.Manufacturer, info.Firmware), nil)
}

// lockout reads how many wrong passwords were counted.
func (x *examination) lockout() bool {
	flags, err := x.chip.property(tpm2.TPMPTPermanent)
	if err != nil {
		return x.add("lockout", "", err)
	}
	count, err := x.chip.property(tpm2.TPMPTLockoutCounter)
	if err != nil {
		return x.add("lockout", "", err)
	}
	if flags&inLockout == 0 {
		x.add("lockout", fmt.Sprintf("no, %d wrong passwords counted", count), nil)
		return true
	}
	cause := fmt.Sprintf("%d wrong passwords were counted", count)
	if s, err := x.chip.property(tpm2.TPMPTLockoutInterval); err == nil {
		cause += fmt.Sprintf(", one is forgotten every %s", time.Duration(s)*time.Second)
	}
	x.minor("lockout", hwkey.ErrLockout.WithCause("%s; keys of tsh have no password and go on working", cause))
	return true
}

// endorsement finds the endorsement key, without making one.
func (x *examination) endorsement() bool {
	const name = "endorsement key"
	flags, err := x.chip.property(tpm2.TPMPTPermanent)
	if err != nil {
		return x.add(name, "", err)
	}
	for _, s := range ekSpecs() {
		cert := x.chip.readCert(s.cert)
		if cert == nil {
			continue
		}
		says := fmt.Sprintf("%s, with a certificate", s.name)
		if c, err := x509.ParseCertificate(trim(cert)); err == nil {
			says += fmt.Sprintf(" by %q", c.Issuer.String())
		}
		x.add(name, says, nil)
		x.password(flags)
		return true
	}
	for _, s := range ekSpecs() {
		if _, _, err := x.chip.persistentEK(s); err == nil {
			x.add(name, fmt.Sprintf("%s, persistent, without a certificate", s.name), nil)
			x.password(flags)
			return true
		}
	}
	x.add(name, "without a certificate, made anew at each enrollment", nil)
	x.password(flags)
	return true
}

// password names an endorsement password that nobody tells us, which keeps from enrolling but not from logging in.
func (x *examination) password(flags uint32) {
	if flags&endorsementAuthSet == 0 || platform.KeepsEndorsementAuth {
		return
	}
	auth, err := platform.EndorsementAuth()
	if err == nil && len(auth) > 0 {
		return
	}
	x.minor("endorsement password", hwkey.ErrEndorsement.WithCause("enrolling anew will not work; logins do"))
}

// storage finds the parent of keys.
func (x *examination) storage() bool {
	o, name, err := x.chip.choose()
	if err != nil {
		return x.add("storage key", "", err)
	}
	says := "persistent " + name
	if name == storageP256 {
		says = "made when it is needed, with an empty owner password"
	}
	return x.add("storage key", says, x.chip.flush(o))
}

// trial makes a key and loads it.
func (x *examination) trial() bool {
	f, err := x.chip.create(template(false))
	var o []object
	if err == nil {
		o, err = x.chip.load(f)
	}
	if err == nil {
		err = x.chip.flush(o[0])
	}
	return x.add("new key", "can be made and loaded", err)
}

// enrolled loads the device key, and compares what it was enrolled with.
func (x *examination) enrolled() bool {
	f, err := x.device.kept()
	if err != nil {
		return x.add("device key", "", err)
	}
	o, err := x.chip.load(f)
	if err == nil {
		err = x.chip.flush(o[0])
	}
	if err = named(err); fault.Because(err, hwkey.ErrCleared.Reason) {
		err = x.which(err, f.Enrollment)
	}
	ok := x.add("device key", "loads in this TPM", err)
	if was := f.Enrollment.TPM; ok && was != nil && *was != *x.info {
		x.minor("firmware", hwkey.ErrFirmwareChanged.WithCause("%s %s then, %s %s now", was.Manufacturer, was.Firmware, x.info.Manufacturer, x.info.Firmware))
	}
	return ok
}

func (x *examination) which(err error, e *hwkey.Enrollment) error {
	spki, ekErr := x.chip.ekSPKI()
	if ekErr != nil {
		return err
	}
	return told(err, e, spki)
}
