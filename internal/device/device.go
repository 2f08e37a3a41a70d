// Package device is a machine in the inventory: what it is called, who enrolled it, and how strongly it is proven.
package device

import (
	"slices"
	"strings"
	"time"
)

// OS is an operating system as typed and stored: linux, macos, windows.
type OS string

// The operating systems.
const (
	Linux   OS = "linux"
	MacOS   OS = "macos"
	Windows OS = "windows"
)

// ParseOS takes the stored word, and darwin for macOS, as Go calls it.
func ParseOS(s string) (OS, bool) {
	switch strings.ToLower(strings.TrimSpace(s)) {
	case "linux":
		return Linux, true
	case "macos", "darwin":
		return MacOS, true
	case "windows":
		return Windows, true
	}
	return "", false
}

// Title is the name that people read: Linux, macOS, Windows.
func (o OS) Title() string {
	switch o {
	case Linux:
		return "Linux"
	case MacOS:
		return "macOS"
	case Windows:
		return "Windows"
	}
	return "unknown"
}

// Kind is the kind of evidence that a device sends about its hardware.
type Kind string

// The kinds of evidence.
const (
	TPM2          Kind = "tpm2"
	SecureEnclave Kind = "secure_enclave"
	Software      Kind = "software"
)

// Level is how strongly a device's hardware is proven.
type Level string

// The levels, strongest first. LevelTPMTrusted alone proves a genuine chip: its EK certificate chains to a listed
// authority. LevelTPMCert has an EK certificate that nobody vouched for, LevelTPMPub none.
const (
	LevelTPMTrusted Level = "tpm_ekcert_trusted"
	LevelTPMCert    Level = "tpm_ekcert"
	LevelTPMPub     Level = "tpm_ekpub"
	LevelEnclave    Level = "secure_enclave"
	LevelSoftware   Level = "software"
)

// Levels lists every level that this build knows.
func Levels() []Level {
	return []Level{LevelTPMTrusted, LevelTPMCert, LevelTPMPub, LevelEnclave, LevelSoftware}
}

// Known reports whether this build knows l.
func (l Level) Known() bool { return slices.Contains(Levels(), l) }

// Hardware reports whether keys of this level live in hardware. Unknown levels do not.
func (l Level) Hardware() bool { return l.Known() && l != LevelSoftware }

// NormalTag is the form in which asset tags are stored and compared: trimmed and upper-cased, so that a tag in other
// case or spacing is the same tag; `ek-…` tags, made here from a hash, stay as they are.
func NormalTag(tag string) string {
	tag = strings.TrimSpace(tag)
	if strings.HasPrefix(strings.ToLower(tag), "ek-") {
		return strings.ToLower(tag)
	}
	return strings.ToUpper(tag)
}

// ValidTag reports whether a normal tag is fit for a certificate: 1 to 128 printable ASCII characters without space
// or comma.
func ValidTag(tag string) bool {
	if tag == "" || len(tag) > 128 {
		return false
	}
	return !strings.ContainsFunc(tag, func(r rune) bool { return r <= ' ' || r > '~' || r == ',' })
}

// ValidEKHash reports whether s is an EK hash as it is written: SHA-256 of its SPKI DER, in lower-case hex.
func ValidEKHash(s string) bool {
	return len(s) == 64 && !strings.ContainsFunc(s, func(r rune) bool { return (r < '0' || r > '9') && (r < 'a' || r > 'f') })
}

// EnrollStatus says whether a device has proven itself.
type EnrollStatus string

// The enroll statuses.
const (
	Enrolled    EnrollStatus = "enrolled"
	NotEnrolled EnrollStatus = "not_enrolled"
)

// Source says where a record came from: a name (tctl, tsh, import, …) and an origin (api, csv, …).
type Source struct {
	Name   string `json:"name,omitempty"`
	Origin string `json:"origin,omitempty"`
}

// TPMInfo is what a TPM says of itself, asserted.
type TPMInfo struct {
	Manufacturer string `json:"manufacturer,omitempty"`
	Firmware     string `json:"firmware,omitempty"`
}

// Credential is one enrollment of a device: its keys, its owner, its level. A new enrollment makes a new one.
// PublicKey is the SPKI DER of the device key (of a TPM the AK); AKArea, of a TPM, its TPMT_PUBLIC.
type Credential struct {
	ID           string    `json:"id"`
	Owner        string    `json:"owner,omitempty"`
	Kind         Kind      `json:"kind,omitempty"`
	PublicKey    []byte    `json:"public_key,omitempty"`
	AKArea       []byte    `json:"ak_area,omitempty"`
	Attestation  Level     `json:"attestation,omitempty"`
	EKHash       string    `json:"ek_hash,omitempty"`
	EKCertSerial string    `json:"ekcert_serial,omitempty"`
	TPM          *TPMInfo  `json:"tpm,omitempty"`
	Clock        *Clock    `json:"clock,omitempty"`
	WouldRefuse  string    `json:"would_refuse,omitempty"` // what ekcert_policy: monitor let pass
	CreateTime   time.Time `json:"create_time,omitzero"`
}

// Data is what a device says of itself at an enrollment or login. Every claim in it is asserted unless a
// credential's level says otherwise.
type Data struct {
	CollectTime time.Time `json:"collect_time,omitzero"`
	OSType      OS        `json:"os_type,omitempty"`
	System
	SerialNumber       string   `json:"serial_number,omitempty"`
	ModelIdentifier    string   `json:"model_identifier,omitempty"`
	ReportedAssetTag   string   `json:"reported_asset_tag,omitempty"`
	SystemSerialNumber string   `json:"system_serial_number,omitempty"`
	BaseBoardSerial    string   `json:"base_board_serial_number,omitempty"`
	TPM                *TPMInfo `json:"tpm,omitempty"`
	ClientVersion      string   `json:"client_version,omitempty"`
}

// System is what a device says of its operating system, and of who uses it.
type System struct {
	OSID       string `json:"os_id,omitempty"`
	OSVersion  string `json:"os_version,omitempty"`
	OSBuild    string `json:"os_build,omitempty"`
	OSUsername string `json:"os_username,omitempty"`
}

// Device is a machine in the inventory, unique by (OSType, AssetTag), with a UUID.
type Device struct {
	ID           string       `json:"-"`
	OSType       OS           `json:"os_type"`
	AssetTag     string       `json:"asset_tag"`
	EKHash       string       `json:"ek_hash,omitempty"` // the one endorsement key that it may enroll with, hex
	EnrollStatus EnrollStatus `json:"enroll_status,omitempty"`
	Source       *Source      `json:"source,omitempty"`
	Owner        string       `json:"owner,omitempty"`
	Credentials  []Credential `json:"credentials,omitempty"`
	CreateTime   time.Time    `json:"create_time,omitzero"`
	UpdateTime   time.Time    `json:"update_time,omitzero"`
	Health       *Health      `json:"health,omitempty"`
	Collected    []Data       `json:"collected_data,omitempty"`
}

// CloneHealth is a copy of the device's health, empty where it has none, to be changed and put back.
func (d *Device) CloneHealth() *Health {
	if d.Health == nil {
		return &Health{}
	}
	h := *d.Health
	return &h
}

// Credential finds a credential by id.
func (d *Device) Credential(id string) (*Credential, bool) {
	for i := range d.Credentials {
		if d.Credentials[i].ID == id {
			return &d.Credentials[i], true
		}
	}
	return nil, false
}

// Enrolled reports whether the device has proven itself and may log in.
func (d *Device) Enrolled() bool { return d.EnrollStatus == Enrolled && len(d.Credentials) > 0 }
