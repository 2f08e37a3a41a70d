package bootlog

import (
	"crypto/sha256"
	"encoding/binary"
	"unicode/utf16"
)

// globalVariable and securityDatabase are the vendors of the variables that PCR 7 holds (UEFI 2.10, 3.3 and 32.4.2), as
// they are stored.
var (
	globalVariable   = [16]byte{0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c}
	securityDatabase = [16]byte{0xcb, 0xb2, 0x19, 0xd7, 0x3a, 0x3d, 0x96, 0x45, 0xa3, 0xbc, 0xda, 0xd0, 0x0e, 0x67, 0x65, 0x6f}
)

// separators are the digests of EV_SEPARATOR: four bytes of 0, or of 0xff; four that say 1 mark an error (PFP 10.4.1).
var (
	separators     = map[[sha256.Size]byte]bool{sha256.Sum256([]byte{0, 0, 0, 0}): true, sha256.Sum256([]byte{0xff, 0xff, 0xff, 0xff}): true}
	errorSeparator = sha256.Sum256([]byte{1, 0, 0, 0})
	debugMode      = sha256.Sum256([]byte("UEFI Debug Mode"))
)

// secureBoot reads the state of Secure Boot from what was measured into PCR 7 before its separator (PFP 3.3.4.8), where
// the firmware alone could extend it. Behind the separator whoever runs can extend what they like, and call any event
// anything: so each event before it has to prove its data, and the separator is found by its digest.
func (l *Log) secureBoot() (*bool, string) {
	vars := map[string][]byte{}
	separated := false
	for _, e := range l.events {
		switch {
		case e.PCR != 7:
			continue
		case e.Digest == errorSeparator:
			return nil, "the firmware reported an error"
		case e.Digest == debugMode:
			return nil, "a firmware debugger was attached"
		case separators[e.Digest]:
			separated = true
			continue
		case separated:
			continue
		case !e.Proven():
			return nil, "an event before the separator does not prove its data"
		}
		name, data, ok := variable(e.Data)
		if !ok {
			continue
		}
		if _, twice := vars[name]; twice {
			return nil, "the firmware measured " + name + " twice"
		}
		vars[name] = data
	}
	state, said := vars["SecureBoot"]
	switch {
	case !separated:
		return nil, "PCR 7 has no separator"
	case !said:
		return nil, "the firmware did not measure the variable SecureBoot"
	case len(state) != 1 || state[0] > 1:
		return nil, "the variable SecureBoot has no value that is known"
	case state[0] == 1 && (len(vars["PK"]) == 0 || len(vars["KEK"]) == 0 || len(vars["db"]) == 0):
		return nil, "Secure Boot is on without keys"
	}
	on := state[0] == 1
	return &on, ""
}

// variable reads UEFI_VARIABLE_DATA (PFP 10.4.2.6): vendor, length of the name in characters, length of the data, name in
// UTF-16, data. Only variables of the two vendors that define Secure Boot are told.
func variable(b []byte) (name string, data []byte, ok bool) {
	if len(b) < 32 {
		return "", nil, false
	}
	vendor := [16]byte(b)
	chars, size := binary.LittleEndian.Uint64(b[16:]), binary.LittleEndian.Uint64(b[24:])
	b = b[32:]
	if chars > 64 || uint64(len(b)) < 2*chars || uint64(len(b))-2*chars != size {
		return "", nil, false
	}
	units := make([]uint16, chars)
	for i := range units {
		units[i] = binary.LittleEndian.Uint16(b[2*i:])
	}
	name, data = string(utf16.Decode(units)), b[2*chars:]
	switch name {
	case "SecureBoot", "PK", "KEK":
		return name, data, vendor == globalVariable
	case "db", "dbx":
		return name, data, vendor == securityDatabase
	}
	return "", nil, false
}
