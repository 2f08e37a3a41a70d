package hostinfo

import (
	"strings"
	"unicode"
)

// placeholder tells what firmware says where nobody filled in a serial, and what a cloud says on each of its machines:
// none of it names one machine. Upper or lower case, punctuation and order of words aside, it is
//
//	one character again and again          0, 00000000, FFFFFFFF, XXXXXXX, ---
//	a few letters and counted digits       0123456789, MB-1234567890, ATN12345678901234567
//	a word of the list                     None, NotSpecified, HUAWEICLOUD
//	a default with a number                SerNum01, AssetTagNum3, OEM_Define2
//	what is left to the maker              To.Be.Filled.By.O.E.M.
//
// Firmware's words are those that the Firmware Test Suite (fwts, dmicheck) finds in dumps of its users, and what
// dmidecode prints for an absent string; clouds' are those that cloud-init goes by. A tag that passes for one made
// from an endorsement key, `ek-…`, is none that a firmware has given.
func placeholder(tag string) bool {
	word := strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			return unicode.ToUpper(r)
		}
		return -1
	}, tag)
	if word == "" || strings.Trim(word, word[:1]) == "" || FromKey(tag) {
		return true
	}
	if _, ok := placeholders[word]; ok {
		return true
	}
	stem := strings.TrimRight(word, "0123456789")
	if _, ok := numbered[stem]; ok && len(word)-len(stem) <= 2 {
		return true
	}
	if strings.HasPrefix(word, "TOBE") || strings.HasSuffix(word, "BYOEM") || strings.HasSuffix(word, "BYODM") {
		return true
	}
	return counted(word)
}

// counted reports whether a word is at most five letters and at least eight digits, each one more than the one before,
// or each one less.
func counted(word string) bool {
	digits := strings.TrimLeft(word, "ABCDEFGHIJKLMNOPQRSTUVWXYZ")
	if len(word)-len(digits) > 5 || len(digits) < 8 {
		return false
	}
	for _, step := range []byte{1, 9} {
		ok := true
		for i := 1; i < len(digits); i++ {
			ok = ok && digits[i] >= '0' && digits[i] <= '9' && digits[i]-'0' == (digits[i-1]-'0'+step)%10
		}
		if ok {
			return true
		}
	}
	return false
}

// placeholders are words without punctuation, in capitals, each with its source.
var placeholders = map[string]string{
	"NONE": "fwts", "NA": "fwts", "EMPTY": "fwts", "UNKNOWN": "fwts", "UNKNOW": "fwts", "NOTAVAILABLE": "fwts",
	"NOTSPECIFIED": "dmidecode, fwts", "NOTSUPPORTED": "fwts", "NOTSUPPORT": "fwts", "NOTAPPLICABLE": "fwts",
	"NULL": "common", "UNDEFINED": "common", "INVALID": "common", "OEM": "common", "DEFAULT": "common", "NIL": "common",
	"DEFAULTSTRING":              "AMI Aptio",
	"INSYDE":                     "Insyde H2O",
	"ASSETTAG":                   "fwts",
	"NOASSETTAG":                 "fwts",
	"NOASSETINFORMATION":         "fwts",
	"SYSTEMSERIALNUMBER":         "fwts",
	"CHASSISSERIALNUMBER":        "fwts",
	"BASEBOARDSERIALNUMBER":      "fwts",
	"SERIALNUMBER":               "common",
	"77837084326590858269328677": "Azure (cloud-init, DataSourceAzure)",
	"ORACLECLOUDCOM":             "Oracle Cloud (cloud-init, DataSourceOracle)",
	"AMAZONEC2":                  "EC2",
	"OPENTELEKOMCLOUD":           "cloud-init, DataSourceOpenStack",
	"HUAWEICLOUD":                "cloud-init, DataSourceOpenStack",
	"OPENSTACKNOVA":              "cloud-init, DataSourceOpenStack",
	"OPENSTACKCOMPUTE":           "cloud-init, DataSourceOpenStack",
	"SAPCCLOUDVM":                "cloud-init, DataSourceOpenStack",
}

// numbered are defaults that a number of one or two digits may follow (fwts).
var numbered = map[string]bool{"SERNUM": true, "ASSETTAGNUM": true, "OEMDEFINE": true, "NONE": true}

// FromKey reports whether a tag is one that was made from an endorsement key.
func FromKey(tag string) bool { return strings.HasPrefix(strings.ToLower(tag), "ek-") }
