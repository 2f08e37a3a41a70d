package device

import (
	"encoding/hex"
	"slices"
	"time"
)

// Health is what was noticed of a device beside its credentials: what it booted, what it is to boot, what its
// endorsement key showed, and what an administrator should look at.
type Health struct {
	Baseline *Baseline `json:"baseline,omitempty"`
	Boot     *Boot     `json:"boot,omitempty"`
	Seen     *Seen     `json:"seen,omitempty"`
	Findings []Finding `json:"findings,omitempty"`
}

// Baseline is what a device is to boot: values of those PCRs in hex. One without values takes those of the next login
// that proves them.
type Baseline struct {
	Watch []int          `json:"watch"`
	PCRs  map[int]string `json:"pcrs,omitempty"`
	Time  time.Time      `json:"time"`
	By    string         `json:"by,omitempty"`
}

// Boot is what a device last proved that it booted. Where the event log proved nothing, Problem is the reason's word and
// Detail says more; SecureBoot is nil where the log does not say it.
type Boot struct {
	Time       time.Time      `json:"time"`
	PCRs       map[int]string `json:"pcrs,omitempty"`
	SecureBoot *bool          `json:"secure_boot,omitempty"`
	Problem    string         `json:"problem,omitempty"`
	Detail     string         `json:"detail,omitempty"`
}

// Seen is the endorsement key that a machine last came with as this device, enrolled or refused. Chain is its
// certificate, DER, where it has one.
type Seen struct {
	Time    time.Time `json:"time"`
	EKHash  string    `json:"ek_hash"`
	EKCert  []byte    `json:"ek_cert,omitempty"`
	Refused string    `json:"refused,omitempty"` // the reason's word
}

// Finding is something about a device that an administrator has not accepted yet; Reason is a stable word.
type Finding struct {
	Reason string    `json:"reason"`
	Text   string    `json:"text"`
	Time   time.Time `json:"time"`
}

// The findings.
const (
	CountersBack    = "counters_back"    // of the TPM, since the same key's last statement
	FirmwareChanged = "firmware_changed" // of the TPM
	BootChanged     = "boot_changed"     // against the baseline
	BootUnproven    = "boot_unproven"    // a log was wanted and proved nothing
	TagChanged      = "tag_changed"      // the machine says another asset tag
	EKUntrusted     = "ekcert_untrusted" // what ekcert_policy: monitor let pass
	Unenrolled      = "unenrolled"       // by an administrator: it does not enroll by itself again
)

// DefaultWatch are the PCRs of a baseline unless told: firmware, option ROMs, boot loader, Secure Boot policy. The others
// hold configuration that changes from start to start on many machines, or what each update of a kernel changes.
func DefaultWatch() []int { return []int{0, 2, 4, 7} }

// Differs lists the PCRs in which a boot is not what the baseline says. What a boot does not prove differs.
func (b *Baseline) Differs(boot *Boot) []int {
	var out []int
	for _, pcr := range b.Watch {
		if have, ok := boot.PCRs[pcr]; !ok || have != b.PCRs[pcr] {
			out = append(out, pcr)
		}
	}
	return out
}

// Pin takes what was booted as the baseline's values, and reports whether the boot proves all of them.
func (b *Baseline) Pin(boot *Boot) bool {
	values := map[int]string{}
	for _, pcr := range b.Watch {
		have, ok := boot.PCRs[pcr]
		if !ok {
			return false
		}
		values[pcr] = have
	}
	b.PCRs = values
	return len(values) > 0
}

// Hex are PCR values as they are stored.
func Hex(values map[int][32]byte) map[int]string {
	out := map[int]string{}
	for pcr, v := range values {
		out[pcr] = hex.EncodeToString(v[:])
	}
	return out
}

// Note adds a finding, in place of an older one of the same reason, whose time stays.
func (h *Health) Note(f Finding) {
	if i := slices.IndexFunc(h.Findings, func(x Finding) bool { return x.Reason == f.Reason }); i >= 0 {
		f.Time = h.Findings[i].Time
		h.Findings = slices.Clone(h.Findings)
		h.Findings[i] = f
		return
	}
	h.Findings = append(slices.Clone(h.Findings), f)
}

// Settle takes findings off.
func (h *Health) Settle(reasons ...string) {
	h.Findings = slices.DeleteFunc(slices.Clone(h.Findings), func(f Finding) bool { return slices.Contains(reasons, f.Reason) })
}

// Found is the finding of a reason.
func (h *Health) Found(reason string) (Finding, bool) {
	for _, f := range h.Findings {
		if f.Reason == reason {
			return f, true
		}
	}
	return Finding{}, false
}

// Clock holds the last figures of an attestation, raw. Counters and firmware are obfuscated per key (TPM 2.0 Part 1,
// 36.7): they are compared with the same AK's alone, counters by their difference and firmware for equality.
type Clock struct {
	Time         uint64 `json:"clock"` // milliseconds that the TPM ran; not obfuscated
	ResetCount   uint32 `json:"reset_count"`
	RestartCount uint32 `json:"restart_count"`
	Firmware     uint64 `json:"firmware"`
}

// Back reports whether the figures went back since the last ones, as those of a machine do that was restored from a
// snapshot, or of which there are two. A TPM's reset and restart counters and its clock only grow; restarts count from
// the last reset.
func (c *Clock) Back(last *Clock) bool {
	if last == nil {
		return false
	}
	resets, restarts := int32(c.ResetCount-last.ResetCount), int32(c.RestartCount-last.RestartCount)
	return resets < 0 || resets == 0 && (restarts < 0 || restarts == 0 && c.Time < last.Time)
}
