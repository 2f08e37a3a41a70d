// Package cluster is what holds for a cluster as a whole: its settings and its versions.
package cluster

import (
	"fmt"
	"slices"
	"time"

	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/role"
)

// Version is this build's version; ProtocolVersion is that of every message between programs, StateVersion that of
// what is stored. What is newer than the program is refused by name.
const (
	Version         = "0.1.0"
	ProtocolVersion = 1
	StateVersion    = 1
)

// Settings are the cluster's authentication settings, the resource cluster_auth_preference.
type Settings struct {
	SecondFactors []string    `json:"second_factors"`
	DeviceTrust   DeviceTrust `json:"device_trust"`
	LockingMode   string      `json:"locking_mode,omitempty"`
	PictureAge    PictureAge  `json:"picture_age,omitzero"`
}

// PictureAge is how old an agent's picture may be where locking is strict: Admit, to let somebody in; Live, for sessions
// to go on. Zero means the default.
type PictureAge struct {
	Admit role.Duration `json:"admit,omitempty"`
	Live  role.Duration `json:"live,omitempty"`
}

// The ages where nothing else is set, and how short and how long they may be set.
const (
	DefaultAdmitAge = 30 * time.Second
	DefaultLiveAge  = 5 * time.Minute
	shortestAge     = 10 * time.Second
	longestAge      = time.Hour
)

// AdmitAge and LiveAge are the ages in force.
func (s Settings) AdmitAge() time.Duration { return orDefault(s.PictureAge.Admit, DefaultAdmitAge) }

// LiveAge is how old a picture may be for sessions to go on.
func (s Settings) LiveAge() time.Duration {
	return max(orDefault(s.PictureAge.Live, DefaultLiveAge), s.AdmitAge())
}

func orDefault(d role.Duration, otherwise time.Duration) time.Duration {
	if d <= 0 {
		return otherwise
	}
	return time.Duration(d)
}

func (a PictureAge) check(s Settings) error {
	for name, d := range map[string]role.Duration{"admit": a.Admit, "live": a.Live} {
		if d != 0 && (time.Duration(d) < shortestAge || time.Duration(d) > longestAge) {
			return fmt.Errorf("picture_age.%s: %s is not between %s and %s", name, time.Duration(d), shortestAge, longestAge)
		}
	}
	if a.Live != 0 && time.Duration(a.Live) < s.AdmitAge() {
		return fmt.Errorf("picture_age.live: %s is shorter than picture_age.admit, %s", time.Duration(a.Live), s.AdmitAge())
	}
	return nil
}

// What device_trust may say beside its mode.
const (
	Enforce = "enforce" // of ekcert_policy: what is not trusted does not enroll
	Monitor = "monitor" // it enrolls, at the level that it proves, and is noted
	OneEach = "one"     // of owners: who enrolls a device takes it over
	Many    = "many"    // several users may enroll one device, each with a credential of their own
)

// DeviceTrust is how the cluster treats devices. EKCertAllowedCAs is PEM, one authority or several an entry.
// EKCertPolicy and Owners say enforce and one where they are empty.
type DeviceTrust struct {
	Mode              device.Mode `json:"mode"`
	AutoEnroll        bool        `json:"auto_enroll,omitempty"`
	AllowSoftwareKeys bool        `json:"allow_software_keys,omitempty"`
	EKCertAllowedCAs  []string    `json:"ekcert_allowed_cas,omitempty"`
	EKCertPolicy      string      `json:"ekcert_policy,omitempty"`
	Owners            string      `json:"owners,omitempty"`
}

// Default is what a new cluster starts with.
func Default() Settings {
	return Settings{
		SecondFactors: []string{"otp"},
		DeviceTrust:   DeviceTrust{Mode: device.ModeOptional},
		LockingMode:   "strict",
	}
}

// Check refuses settings that this build does not know or enforce; the error names the field.
func (s Settings) Check() error {
	for _, f := range s.SecondFactors {
		if f == "webauthn" {
			return fmt.Errorf("second_factors: webauthn is not enforced by this build")
		}
		if f != "otp" {
			return fmt.Errorf("second_factors: unknown factor %q, want otp", f)
		}
	}
	if !s.DeviceTrust.Mode.Known() {
		return fmt.Errorf("device_trust.mode: unknown mode %q, want off, optional, required or required-for-humans", s.DeviceTrust.Mode)
	}
	if s.LockingMode != "" && s.LockingMode != "strict" && s.LockingMode != "best_effort" {
		return fmt.Errorf("locking_mode: unknown mode %q, want strict or best_effort", s.LockingMode)
	}
	if p := s.DeviceTrust.EKCertPolicy; p != "" && p != Enforce && p != Monitor {
		return fmt.Errorf("device_trust.ekcert_policy: unknown policy %q, want enforce or monitor", p)
	}
	if o := s.DeviceTrust.Owners; o != "" && o != OneEach && o != Many {
		return fmt.Errorf("device_trust.owners: unknown word %q, want one or many", o)
	}
	if err := s.PictureAge.check(s); err != nil {
		return err
	}
	return nil
}

// NeedsOTP reports whether a login needs a one-time code. Whatever is listed and not known counts as needed.
func (s Settings) NeedsOTP() bool { return len(s.SecondFactors) > 0 }

// Differences names each setting in which two differ, for `sallyport start` to print.
func (s Settings) Differences(stored Settings) []string {
	var out []string
	say := func(differs bool, name string, file, cap any) {
		if differs {
			out = append(out, fmt.Sprintf("%s: the file says %v, the cluster has %v", name, file, cap))
		}
	}
	say(!slices.Equal(s.SecondFactors, stored.SecondFactors), "second_factors", s.SecondFactors, stored.SecondFactors)
	a, b := s.DeviceTrust, stored.DeviceTrust
	say(a.Mode != b.Mode, "device_trust.mode", a.Mode, b.Mode)
	say(a.AutoEnroll != b.AutoEnroll, "device_trust.auto_enroll", a.AutoEnroll, b.AutoEnroll)
	say(a.AllowSoftwareKeys != b.AllowSoftwareKeys, "device_trust.allow_software_keys", a.AllowSoftwareKeys, b.AllowSoftwareKeys)
	say(a.EKCertPolicy != b.EKCertPolicy, "device_trust.ekcert_policy", a.EKCertPolicy, b.EKCertPolicy)
	say(a.Owners != b.Owners, "device_trust.owners", a.Owners, b.Owners)
	say(!slices.Equal(a.EKCertAllowedCAs, b.EKCertAllowedCAs), "device_trust.ekcert_allowed_cas",
		fmt.Sprintf("%d authorities", len(a.EKCertAllowedCAs)), fmt.Sprintf("%d", len(b.EKCertAllowedCAs)))
	return out
}
