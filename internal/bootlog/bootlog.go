// Package bootlog judges what a machine booted: the event log that its firmware wrote, against the PCRs that its TPM
// has signed.
//
// A log is crypto-agile (TCG PC Client Platform Firmware Profile 1.06, 10.2): a first event in the old form
//
//	pcr uint32  type uint32  SHA-1 digest [20]  size uint32  data
//
// whose data is the Spec ID event with the algorithms and their sizes, then events, all little-endian
//
//	pcr uint32  type uint32  count uint32  count × (algorithm uint16, digest)  size uint32  data
//
// Only digests are extended into a PCR: type, data and order between PCRs are what the machine says. So nothing here
// goes by an event's type, but for EV_NO_ACTION, which extends nothing, and data count only where they hash to the
// digest of their event. The package reads bytes and returns values.
package bootlog

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"slices"

	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/fault"
)

// MaxLog is the longest log that is read.
const MaxLog = device.MaxEventLog

// PCRs are those that are quoted, in order.
var PCRs = device.QuotedPCRs

// firmwarePCRs, 0 to 7, are those that have to replay before anything is taken from a log.
const firmwarePCRs = 8

const (
	evNoAction = 3
	algSHA256  = 0x000b
	maxAlgs    = 16
	maxPCR     = 24
)

// Event is one measurement. Its data are proven only where Proven says so.
type Event struct {
	PCR    int
	Type   uint32
	Digest [sha256.Size]byte
	Data   []byte
}

// Proven reports whether the data are what was measured.
func (e Event) Proven() bool { return sha256.Sum256(e.Data) == e.Digest }

// Log is a log that was read, not yet compared with anything.
type Log struct {
	events   []Event
	locality byte // of the TPM's startup: what PCR 0 begins with
}

// refuse is a judgement on a log; reason is its stable word.
func refuse(reason, format string, args ...any) *fault.Error {
	return fault.New(fault.Denied, "the event log proves nothing").WithReason(reason).WithCause(format, args...)
}

// reader takes bytes apart; what is not there is an error once, and nothing is allocated by what a log says.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n uint64) []byte {
	if r.bad || n > uint64(len(r.b)) {
		r.bad = true
		return nil
	}
	out := r.b[:n:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) u32() uint32 {
	if b := r.take(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (r *reader) u16() uint16 {
	if b := r.take(2); b != nil {
		return binary.LittleEndian.Uint16(b)
	}
	return 0
}

func (r *reader) u8() byte {
	if b := r.take(1); b != nil {
		return b[0]
	}
	return 0
}

// Parse reads a log.
func Parse(raw []byte) (*Log, error) {
	if len(raw) > MaxLog {
		return nil, refuse("eventlog_size", "the event log has %d bytes, at most %d", len(raw), MaxLog)
	}
	if len(raw) == 0 {
		return nil, refuse("eventlog_empty", "the event log is empty")
	}
	r := &reader{b: raw}
	sizes, err := header(r)
	if err != nil {
		return nil, err
	}
	l := &Log{}
	for len(r.b) > 0 && !padding(r.b) {
		e, err := event(r, sizes, len(l.events))
		if err != nil {
			return nil, err
		}
		if e.Type != evNoAction {
			l.events = append(l.events, e)
		} else if err := l.startup(e); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// padding reports whether firmware filled the rest of the log's area.
func padding(b []byte) bool {
	return len(bytes.Trim(b, "\x00")) == 0 || len(bytes.Trim(b, "\xff")) == 0
}

// header reads the first event, which names the algorithms of all others (10.4.5.1).
func header(r *reader) (map[uint16]int, error) {
	pcr, kind := r.u32(), r.u32()
	r.take(20)
	d := &reader{b: r.take(uint64(r.u32()))}
	if r.bad {
		return nil, refuse("eventlog_truncated", "the event log ends in its first event")
	}
	if pcr != 0 || kind != evNoAction || !bytes.Equal(d.take(16), []byte("Spec ID Event03\x00")) {
		return nil, refuse("eventlog_sha1", "the event log is in the old form, with SHA-1 digests alone")
	}
	d.take(8) // platform class, version, size of UINTN
	count := d.u32()
	if d.bad || count == 0 || count > maxAlgs {
		return nil, refuse("eventlog_malformed", "the event log names %d algorithms", count)
	}
	sizes := map[uint16]int{}
	for range count {
		alg, size := d.u16(), int(d.u16())
		if _, twice := sizes[alg]; d.bad || twice || size == 0 || size > 64 {
			return nil, refuse("eventlog_malformed", "the event log's algorithms cannot be read")
		}
		sizes[alg] = size
	}
	if sizes[algSHA256] != sha256.Size {
		return nil, refuse("eventlog_sha1", "the event log has no SHA-256 digests")
	}
	return sizes, nil
}

func event(r *reader, sizes map[uint16]int, n int) (Event, error) {
	pcr, kind, count := r.u32(), r.u32(), r.u32()
	if !r.bad && (pcr >= maxPCR && kind != evNoAction || count > maxAlgs) {
		return Event{}, refuse("eventlog_malformed", "event %d is on PCR %d with %d digests", n, pcr, count)
	}
	e := Event{PCR: int(pcr), Type: kind}
	found := false
	for range count {
		alg := r.u16()
		size, known := sizes[alg]
		if !r.bad && (!known || found && alg == algSHA256) {
			return Event{}, refuse("eventlog_malformed", "event %d has a digest of algorithm %#x that the log does not name, or twice", n, alg)
		}
		d := r.take(uint64(size))
		if alg == algSHA256 && d != nil {
			found = true
			copy(e.Digest[:], d)
		}
	}
	e.Data = r.take(uint64(r.u32()))
	if r.bad {
		return Event{}, refuse("eventlog_truncated", "the event log ends in event %d", n)
	}
	if !found && kind != evNoAction {
		return Event{}, refuse("eventlog_sha1", "event %d has no SHA-256 digest", n)
	}
	return e, nil
}

// startup takes the locality of TPM2_Startup, with which PCR 0 begins (10.4.5.3).
func (l *Log) startup(e Event) error {
	if e.PCR != 0 || len(e.Data) != 17 || !bytes.HasPrefix(e.Data, []byte("StartupLocality\x00")) {
		return nil
	}
	if l.locality != 0 {
		return refuse("eventlog_malformed", "the event log tells the locality of the start twice")
	}
	l.locality = e.Data[16]
	return nil
}

// Replay is the value that the log gives a PCR.
func (l *Log) Replay(pcr int) [sha256.Size]byte {
	var v [sha256.Size]byte
	if pcr == 0 {
		v[sha256.Size-1] = l.locality
	}
	for _, e := range l.events {
		if e.PCR == pcr {
			v = sha256.Sum256(slices.Concat(v[:], e.Digest[:]))
		}
	}
	return v
}

// Verdict is what a quoted log proves. Values are the PCRs that it replays to, by their number. SecureBoot is nil where
// the log does not say it beyond doubt; Doubt then says why.
type Verdict struct {
	Values     map[int][sha256.Size]byte
	SecureBoot *bool
	Doubt      string
}

// Judge compares a log with PCR values that a quote vouches for, those of PCRs in order. Each of 0 to 7 has to replay,
// else the log proves nothing; of the others those count that do.
func Judge(raw, quoted []byte) (Verdict, error) {
	if len(quoted) != len(PCRs)*sha256.Size {
		return Verdict{}, refuse("eventlog_replay", "%d bytes of PCRs were quoted", len(quoted))
	}
	l, err := Parse(raw)
	if err != nil {
		return Verdict{}, err
	}
	v := Verdict{Values: map[int][sha256.Size]byte{}}
	for i, pcr := range PCRs {
		have := [sha256.Size]byte(quoted[i*sha256.Size:])
		switch {
		case l.Replay(pcr) == have:
			v.Values[pcr] = have
		case pcr < firmwarePCRs:
			return Verdict{}, refuse("eventlog_replay", "the event log does not replay to PCR %d, which is %s", pcr, Describe(pcr))
		}
	}
	v.SecureBoot, v.Doubt = l.secureBoot()
	return v, nil
}

// Describe says what is measured into a PCR (PFP 3.3.4; 8, 9 and 14 by GRUB, systemd-boot and shim).
func Describe(pcr int) string {
	names := map[int]string{0: "the firmware's code", 1: "the firmware's configuration", 2: "code of option ROMs", 3: "configuration of option ROMs",
		4: "the boot loader", 5: "the boot loader's configuration and the partition table", 6: "the maker's own", 7: "the Secure Boot policy",
		8: "the boot loader's commands", 9: "what the boot loader read: kernel, initrd", 14: "shim's own keys"}
	return names[pcr]
}
