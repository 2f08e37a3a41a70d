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
