// Package hostinfo is what the machine says of itself: its operating system, its serials, and the asset tag that
// follows from them. All of it is asserted; what cannot be read stays empty and means unknown.
package hostinfo

import (
	"os/user"
	"runtime"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/sallyport/sallyport/internal/device"
)

// Each platform has in one file
//
//	readOS(*device.Data)       OSID, OSVersion, OSBuild
//	readSerials(*device.Data)  ReportedAssetTag, SystemSerialNumber, BaseBoardSerial, SerialNumber, ModelIdentifier

// Collect reads what this machine says of itself at a moment, and its asset tag: "" where none could be read, then the
// tag comes from the hardware's key.
func Collect(version string, now time.Time) (device.Data, string) {
	d := device.Data{CollectTime: now.UTC(), ClientVersion: version}
	d.OSType, _ = device.ParseOS(runtime.GOOS)
	if u, err := user.Current(); err == nil {
		d.OSUsername = u.Username
	}
	readOS(&d)
	readSerials(&d)
	for _, s := range []*string{&d.OSID, &d.OSVersion, &d.OSBuild, &d.OSUsername, &d.SerialNumber, &d.ModelIdentifier,
		&d.ReportedAssetTag, &d.SystemSerialNumber, &d.BaseBoardSerial} {
		*s = plain(*s)
	}
	return d, Tag(d)
}

// plain is the text trimmed, or nothing where it is no plain text: such a claim would be refused.
func plain(s string) string {
	s = strings.TrimSpace(s)
	if len(s) > 256 || !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return ""
	}
	return s
}

// Tag is the asset tag that the collected data give: on macOS the platform serial, elsewhere the first of chassis
// asset tag, system serial, baseboard serial that is not empty, has no space in it and is no placeholder.
func Tag(d device.Data) string {
	candidates := []string{d.ReportedAssetTag, d.SystemSerialNumber, d.BaseBoardSerial}
	if d.OSType == device.MacOS {
		candidates = []string{d.SerialNumber}
	}
	for _, c := range candidates {
		if t := device.NormalTag(c); device.ValidTag(t) && !placeholder(t) {
			return t
		}
	}
	return ""
}

// placeholder tells what firmware says where nobody filled in a serial. Some of it is the same on millions of machines.
func placeholder(tag string) bool {
	if strings.Trim(tag, tag[:1]) == "" { // 0, 00000000, FFFFFFFF, XXXXX, -----
		return true
	}
	if strings.HasPrefix(strings.ToLower(tag), "ek-") {
		return true // made from an endorsement key, never by a firmware
	}
	squeezed := strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			return unicode.ToUpper(r)
		}
		return -1
	}, tag)
	_, found := placeholders[squeezed]
	return found || squeezed == ""
}

// placeholders in capitals without punctuation, each with where it is seen.
var placeholders = map[string]string{
	"NONE":                       "VMware, QEMU: dmidecode dumps",
	"NOTSPECIFIED":               "what dmidecode prints for string 0 (dmidecode.c, dmi_string)",
	"NOTAVAILABLE":               "Lenovo chassis",
	"NOTAPPLICABLE":              "Supermicro",
	"NOTPROVIDED":                "HP chassis",
	"NA":                         "many",
	"NULL":                       "Xiaomi",
	"EMPTY":                      "Dell server blades",
	"UNKNOWN":                    "AMI",
	"UNDEFINED":                  "seen without a known maker",
	"INVALID":                    "HP",
	"OEM":                        "seen without a known maker",
	"DEFAULT":                    "seen without a known maker",
	"DEFAULTSTRING":              "AMI Aptio V default",
	"TOBEFILLEDBYOEM":            "AMI Aptio IV default",
	"TOBEFILLEDBYOEMO":           "AMI",
	"FILLEDBYOEM":                "AMI",
	"NOASSETTAG":                 "VMware, Lenovo",
	"NOASSETINFORMATION":         "Lenovo ThinkPad",
	"ASSETTAG":                   "seen without a known maker",
	"NUMBER":                     "seen without a known maker",
	"SERIALNUMBER":               "seen without a known maker",
	"SYSTEMSERIALNUMBER":         "ASUS, Supermicro",
	"CHASSISSERIALNUMBER":        "ASUS",
	"BOARDSERIALNUMBER":          "seen without a known maker",
	"SERNUM0":                    "AMI reference code",
	"INSYDE":                     "Insyde H2O default",
	"ASSET1234567890":            "ASUS chassis: Asset-1234567890",
	"ATN12345678901234567":       "ASUS notebooks, chassis",
	"BSN12345678901234567":       "ASUS notebooks, baseboard",
	"MB1234567890":               "ASUS baseboard: MB-1234567890",
	"SSN12345678901234567":       "ASUS notebooks, system",
	"0123456789":                 "Supermicro: chassis, system and board",
	"123456789":                  "Gigabyte",
	"1234567890":                 "Supermicro",
	"12345678":                   "seen without a known maker",
	"01234567":                   "seen without a known maker",
	"77837084326590858269328677": "every Azure machine (cloud-init, DataSourceAzure.py)",
	"ORACLECLOUDCOM":             "every Oracle Cloud machine (cloud-init, DataSourceOracle.py)",
	"AMAZONEC2":                  "every EC2 machine",
	"OPENTELEKOMCLOUD":           "every Open Telekom Cloud machine (cloud-init, DataSourceOpenStack.py)",
	"HUAWEICLOUD":                "every Huawei Cloud machine (cloud-init, DataSourceOpenStack.py)",
	"OPENSTACKNOVA":              "OpenStack (cloud-init, DataSourceOpenStack.py)",
	"SAPCCLOUDVM":                "every SAP Converged Cloud machine (cloud-init, DataSourceOpenStack.py)",
	"SAMSUNGCLOUDPLATFORM":       "every Samsung Cloud machine (cloud-init, DataSourceOpenStack.py)",
	"RACKSPACECLOUD":             "seen without a known maker",
	"GOOGLECLOUD":                "GCE without its unique tail",
}
