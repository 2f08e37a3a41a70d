package hostinfo

import (
	"bytes"
	"encoding/binary"

	"github.com/sallyport/sallyport/internal/device"
)

// smbios reads the answer of GetSystemFirmwareTable('RSMB'): Microsoft's RawSMBIOSData, 8 bytes with the length last,
// then the structures of DMTF DSP0134, 6.1: type, length, handle, the formatted area, and strings that end in two zero
// bytes. What cannot be read stays empty.
func smbios(raw []byte, d *device.Data) {
	if len(raw) < 8 {
		return
	}
	table := raw[8:]
	if n := binary.LittleEndian.Uint32(raw[4:]); uint64(n) < uint64(len(table)) {
		table = table[:n]
	}
	set := func(to *string, s string) {
		if *to == "" {
			*to = s
		}
	}
	for len(table) >= 4 {
		kind, size := table[0], int(table[1])
		if size < 4 || size > len(table) {
			return
		}
		formatted, rest := table[:size], table[size:]
		end := bytes.Index(rest, []byte{0, 0})
		if end < 0 {
			return
		}
		words := bytes.Split(rest[:end], []byte{0})
		table = rest[end+2:]
		str := func(offset int) string {
			if offset >= len(formatted) || formatted[offset] == 0 || int(formatted[offset]) > len(words) {
				return ""
			}
			return string(words[formatted[offset]-1])
		}
		switch kind {
		case 1: // system information, 7.2
			set(&d.ModelIdentifier, str(5))
			set(&d.SystemSerialNumber, str(7))
		case 2: // baseboard, 7.3
			set(&d.BaseBoardSerial, str(7))
		case 3: // chassis, 7.4
			set(&d.ReportedAssetTag, str(8))
		case 127: // end of table, 7.45
			return
		}
	}
}
