package access

import (
	"fmt"
	"strings"

	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/identity"
)

// demand is a requirement of a role that a device does not meet: what it is, and what to type about it.
type demand struct{ what, fix string }

// wording names every demand.
func wording(list []demand) string {
	var out []string
	for _, d := range list {
		out = append(out, d.what)
	}
	return strings.Join(out, "; and ")
}

// remedies says what to type about every demand.
func remedies(list []demand) string {
	var out []string
	for _, d := range list {
		out = append(out, d.fix)
	}
	return strings.Join(out, "; and ")
}

// unmet names each requirement of the role that the device does not meet. Secure Boot counts only as the certificate
// says it, which takes it from a quoted event log; a version is what the device says of itself.
func (p *Policy) unmet(d *identity.Device, key identity.KeyPolicy) []demand {
	var out []demand
	q := p.options.DeviceRequirements
	if len(q.Attestation) > 0 && !levelListed(q.Attestation, d.Level) {
		out = append(out, demand{fmt.Sprintf("attestation one of %v, and this device has %s", q.Attestation, d.Level), strengthen(q.Attestation, d)})
	}
	if len(q.Attestation) > 0 && d.Claims.CountersBack {
		out = append(out, demand{"attestation, and this device's TPM has counters that went back: it was restored from a snapshot, or has a clone",
			fmt.Sprintf("tsh device enroll --current-device   (the clone's credential dies), or ask a device admin: tctl devices accept --asset-tag=%s", d.AssetTag)})
	}
	if q.SessionKey != "" && (key != identity.KeyHardware || !d.Level.Hardware()) {
		out = append(out, demand{"a session key in hardware, and this login's is in a file",
			"tsh device enroll --current-device   (on a machine with a TPM or a Secure Enclave)"})
	}
	if q.SecureBoot && (d.Claims.SecureBoot == nil || !*d.Claims.SecureBoot) {
		out = append(out, secureBoot(d))
	}
	if q.OSVersion != "" && !p.version.Meets(d.OS, d.Claims.OSVersion) {
		out = append(out, demand{fmt.Sprintf("os_version %s, and this device says %s %q", q.OSVersion, d.OS.Title(), d.Claims.OSVersion),
			"update the system, then: tsh login"})
	}
	return out
}

// strengthen is how a device comes to a level that is wanted.
func strengthen(wanted []device.Level, d *identity.Device) string {
	if levelListed(wanted, device.LevelTPMTrusted) && (d.Level == device.LevelTPMCert || d.Level == device.LevelTPMPub) {
		return fmt.Sprintf("ask an administrator: tctl devices trust --asset-tag=%s; then on the device: tsh device enroll --current-device", d.AssetTag)
	}
	return "tsh login   (from a device of such a level; tsh device status shows this one's)"
}

func secureBoot(d *identity.Device) demand {
	switch {
	case d.Claims.SecureBoot != nil:
		return demand{"Secure Boot, and this device has proven that it is off", "switch Secure Boot on in the firmware's setup, then: tsh login"}
	case d.Level.Hardware() && d.Level != device.LevelEnclave:
		return demand{"Secure Boot, which this login does not prove", "tsh login   (it says why the device's event log proves nothing)"}
	}
	return demand{"Secure Boot, which a " + string(d.Level) + " device cannot prove", "tsh login   (from a device with a TPM)"}
}
