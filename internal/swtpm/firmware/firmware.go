// Package firmware starts machines for tests as a UEFI firmware does: it measures into an emulated TPM and writes the
// event log (TCG PC Client Platform Firmware Profile 1.06, 10). No shipped binary links it.
package firmware

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"unicode/utf16"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// The types of events that are used here.
const (
	NoAction       = 0x00000003
	Separator      = 0x00000004
	Version        = 0x00000008
	IPL            = 0x0000000d
	VariableConfig = 0x80000001
	BootServices   = 0x80000003
	Action         = 0x80000007
	Authority      = 0x800000e0
)

// Event is one measurement. Its digest is that of Data, unless it is given; a given Measured is hashed and not logged.
type Event struct {
	PCR      int
	Type     uint32
	Data     []byte
	Measured []byte
}

// Digest is what is extended.
func (e Event) Digest() [sha256.Size]byte {
	if e.Measured != nil {
		return sha256.Sum256(e.Measured)
	}
	return sha256.Sum256(e.Data)
}

// Variable is UEFI_VARIABLE_DATA of a variable of vendor EFI_GLOBAL_VARIABLE or, for db and dbx, of the security
// database.
func Variable(name string, data []byte) []byte {
	vendor := []byte{0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c}
	if name == "db" || name == "dbx" {
		vendor = []byte{0xcb, 0xb2, 0x19, 0xd7, 0x3a, 0x3d, 0x96, 0x45, 0xa3, 0xbc, 0xda, 0xd0, 0x0e, 0x67, 0x65, 0x6f}
	}
	units := utf16.Encode([]rune(name))
	b := binary.LittleEndian.AppendUint64(vendor, uint64(len(units)))
	b = binary.LittleEndian.AppendUint64(b, uint64(len(data)))
	for _, u := range units {
		b = binary.LittleEndian.AppendUint16(b, u)
	}
	return append(b, data...)
}

// Boot is how a machine starts.
type Boot struct {
	SecureBoot bool
	Loader     string // the boot loader's image, as it were
	DBX        int    // bytes of forbidden signatures, which make logs large
}

// Events are what the firmware measures.
func (b Boot) Events() []Event {
	state := []byte{0}
	if b.SecureBoot {
		state[0] = 1
	}
	list := []Event{
		{PCR: 0, Type: Version, Data: []byte("T\x00E\x00S\x00T\x00\x00\x00")},
		{PCR: 7, Type: VariableConfig, Data: Variable("SecureBoot", state)},
		{PCR: 7, Type: VariableConfig, Data: Variable("PK", []byte("platform key"))},
		{PCR: 7, Type: VariableConfig, Data: Variable("KEK", []byte("exchange key"))},
		{PCR: 7, Type: VariableConfig, Data: Variable("db", []byte("permitted"))},
		{PCR: 7, Type: VariableConfig, Data: Variable("dbx", make([]byte, b.DBX))},
		{PCR: 4, Type: Action, Data: []byte("Calling EFI Application from Boot Option")},
	}
	for pcr := range 8 {
		list = append(list, Event{PCR: pcr, Type: Separator, Data: []byte{0, 0, 0, 0}})
	}
	if b.SecureBoot {
		list = append(list, Event{PCR: 7, Type: Authority, Data: Variable("db", []byte("who signed the loader"))})
	}
	return append(list,
		Event{PCR: 4, Type: BootServices, Data: []byte("path of the image"), Measured: []byte("image " + b.Loader)},
		Event{PCR: 8, Type: IPL, Data: []byte("grub_cmd: linux /vmlinuz")},
		Event{PCR: 9, Type: IPL, Data: []byte("/vmlinuz"), Measured: []byte("kernel of " + b.Loader)})
}

// Header is the first event of a log: Spec ID with SHA-1 and SHA-256.
func Header() []byte {
	spec := append([]byte("Spec ID Event03\x00"), 0, 0, 0, 0, 0, 2, 0, 2, 2, 0, 0, 0, 4, 0, 20, 0, 0x0b, 0, 32, 0, 0)
	b := make([]byte, 28, 32+len(spec))
	b[4] = NoAction
	b = binary.LittleEndian.AppendUint32(b, uint32(len(spec)))
	return append(b, spec...)
}

// Append writes an event behind a log, whatever its digest is to be.
func Append(log []byte, e Event, digest [sha256.Size]byte) []byte {
	log = binary.LittleEndian.AppendUint32(log, uint32(e.PCR))
	log = binary.LittleEndian.AppendUint32(log, e.Type)
	log = append(log, 2, 0, 0, 0, 4, 0)
	log = append(log, make([]byte, 20)...)
	log = append(log, 0x0b, 0)
	log = append(log, digest[:]...)
	log = binary.LittleEndian.AppendUint32(log, uint32(len(e.Data)))
	return append(log, e.Data...)
}

// Log is the event log of events.
func Log(list []Event) []byte {
	log := Header()
	for _, e := range list {
		log = Append(log, e, e.Digest())
	}
	return log
}

// Extend measures events into a TPM that was reset.
func Extend(t transport.TPM, list []Event) error {
	var all []error
	for _, e := range list {
		if e.Type == NoAction {
			continue
		}
		d := e.Digest()
		_, err := tpm2.PCRExtend{
			PCRHandle: tpm2.AuthHandle{Handle: tpm2.TPMHandle(e.PCR), Auth: tpm2.PasswordAuth(nil)},
			Digests: tpm2.TPMLDigestValues{Digests: []tpm2.TPMTHA{
				{HashAlg: tpm2.TPMAlgSHA256, Digest: d[:]}}},
		}.Execute(t)
		all = append(all, err)
	}
	return errors.Join(all...)
}
