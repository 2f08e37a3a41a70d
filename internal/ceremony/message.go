package ceremony

import (
	"encoding/binary"
	"encoding/json"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/sallyport/sallyport/internal/device"
	"github.com/sallyport/sallyport/internal/fault"
)

// The message types.
const (
	typeHello     = 1
	typeChallenge = 2
	typeProof     = 3
	typeWelcome   = 4
	typeLog       = 5
)

var typeNames = [...]string{"message", "Hello", "Challenge", "Proof", "Welcome", "Log"}

// wantsQuote is the one bit of Challenge's wants.
const wantsQuote = 1

// Bounds of what Hello may carry in text.
const (
	maxWord  = 256
	maxClaim = 8 << 10
)

// encode builds a message; an error says that a field does not fit.
func encode(head []byte, fields ...[]byte) ([]byte, error) {
	out := append([]byte(nil), head...)
	for i, f := range fields {
		if len(f) > 0xffff {
			return nil, bad("field %d of %s has %d bytes", i, typeNames[head[0]], len(f))
		}
		out = binary.BigEndian.AppendUint16(out, uint16(len(f)))
		out = append(out, f...)
	}
	if len(out) > MaxMessage {
		return nil, bad("%s has %d bytes", typeNames[head[0]], len(out))
	}
	return out, nil
}

// decode takes a message of one type apart: head bytes (type included) and exactly n fields. The fields are copies.
func decode(msg []byte, typ byte, head, n int) ([]byte, [][]byte, error) {
	name := typeNames[typ]
	if len(msg) > MaxMessage {
		return nil, nil, malformed("device_message_too_large", "%s has %d bytes, at most %d", name, len(msg), MaxMessage)
	}
	if len(msg) < head {
		return nil, nil, malformed("device_message_truncated", "%s ends in its first bytes", name)
	}
	if msg[0] != typ {
		return nil, nil, malformed("device_message_order", "want %s, got message type %d", name, msg[0])
	}
	rest := append([]byte(nil), msg...)
	first, rest := rest[:head], rest[head:]
	fields := make([][]byte, n)
	for i := range fields {
		if len(rest) < 2 {
			return nil, nil, malformed("device_message_truncated", "%s ends before field %d", name, i)
		}
		size := int(binary.BigEndian.Uint16(rest))
		if len(rest)-2 < size {
			return nil, nil, malformed("device_message_truncated", "%s ends in field %d", name, i)
		}
		fields[i], rest = rest[2:2+size:2+size], rest[2+size:]
	}
	if len(rest) != 0 {
		return nil, nil, malformed("device_message_trailing", "%s has %d bytes behind its end", name, len(rest))
	}
	return first, fields, nil
}

// hello is the first message in parts.
type hello struct {
	purpose      Purpose
	claims       device.Data
	token        string
	credentialID string
	evidence     device.Evidence
}

const helloFields = 12

func (h hello) encode() ([]byte, error) {
	claims, err := json.Marshal(h.claims)
	if err != nil {
		return nil, bad("claims: %v", err)
	}
	e, tpm := h.evidence, device.TPMInfo{}
	if e.TPM != nil {
		tpm = *e.TPM
	}
	return encode([]byte{typeHello, Version, h.purpose.code()},
		[]byte(e.Kind), claims, e.SessionArea, []byte(h.token), []byte(h.credentialID), []byte(e.EKName), e.EKCert,
		e.EKPublic, e.KeyArea, e.Key, []byte(tpm.Manufacturer), []byte(tpm.Firmware))
}

func decodeHello(msg []byte, want Purpose) (hello, error) {
	if len(msg) >= 2 && len(msg) <= MaxMessage && msg[0] == typeHello && msg[1] != Version {
		return hello{}, fault.New(fault.Unsupported, "device protocol version %d is not known here, this is version %d",
			msg[1], Version).WithReason("device_protocol_version")
	}
	head, f, err := decode(msg, typeHello, 3, helloFields)
	if err != nil {
		return hello{}, err
	}
	if head[2] != want.code() {
		return hello{}, malformed("device_purpose", "Hello is not for %s", want)
	}
	h := hello{purpose: want, token: string(f[3]), credentialID: string(f[4]), evidence: device.Evidence{
		Kind: device.Kind(f[0]), SessionArea: f[2], EKName: device.EKName(f[5]), EKCert: f[6], EKPublic: f[7],
		KeyArea: f[8], Key: f[9]}}
	if len(f[10])+len(f[11]) > 0 {
		h.evidence.TPM = &device.TPMInfo{Manufacturer: string(f[10]), Firmware: string(f[11])}
	}
	for _, i := range []int{0, 3, 4, 5, 10, 11} {
		if !wordOK(string(f[i])) {
			return hello{}, malformed("device_text", "field %d of Hello is no plain text", i)
		}
	}
	if h.claims, err = decodeClaims(f[1]); err != nil {
		return hello{}, err
	}
	return h, h.shape()
}

// shape refuses fields that do not belong to the purpose and kind, so that nothing unsigned-for rides along.
func (h hello) shape() error {
	e, enroll := h.evidence, h.purpose == Enroll
	tpm := e.Kind == device.TPM2
	check := []struct {
		name      string
		have      bool
		must, may bool
	}{
		{"session_area", len(e.SessionArea) > 0, tpm, tpm},
		{"token", h.token != "", false, enroll},
		{"credential_id", h.credentialID != "", !enroll, !enroll},
		{"ek_name", e.EKName != "", tpm && enroll, tpm && enroll},
		{"ek_cert", len(e.EKCert) > 0, false, tpm && enroll},
		{"ek_public", len(e.EKPublic) > 0, tpm && enroll && len(e.EKCert) == 0, tpm && enroll},
		{"key_area", len(e.KeyArea) > 0, tpm && enroll, tpm && enroll},
		{"key", len(e.Key) > 0, !tpm && enroll, !tpm && enroll},
		{"tpm_manufacturer", e.TPM != nil, false, tpm && enroll},
	}
	switch e.Kind {
	case device.TPM2, device.SecureEnclave, device.Software:
	default:
		return malformed("device_kind", "kind of evidence %q is not known", e.Kind)
	}
	for _, c := range check {
		if c.must && !c.have {
			return malformed("device_field", "%s is missing in a Hello for %s by %s", c.name, h.purpose, e.Kind)
		}
		if c.have && !c.may {
			return malformed("device_field", "%s has no place in a Hello for %s by %s", c.name, h.purpose, e.Kind)
		}
	}
	return nil
}

// decodeClaims takes what the device says of itself. Claims that this build does not know are left out: nothing is
// decided by them.
func decodeClaims(b []byte) (device.Data, error) {
	var d device.Data
	if len(b) > maxClaim {
		return d, malformed("device_message_too_large", "claims have %d bytes, at most %d", len(b), maxClaim)
	}
	if err := json.Unmarshal(b, &d); err != nil {
		return device.Data{}, malformed("device_claims", "claims are no JSON object of known shape")
	}
	words := []string{string(d.OSType), d.OSID, d.OSVersion, d.OSBuild, d.OSUsername, d.SerialNumber, d.ModelIdentifier,
		d.ReportedAssetTag, d.SystemSerialNumber, d.BaseBoardSerial, d.ClientVersion}
	if d.TPM != nil {
		words = append(words, d.TPM.Manufacturer, d.TPM.Firmware)
	}
	for _, w := range words {
		if !wordOK(w) {
			return device.Data{}, malformed("device_text", "a claim is no plain text of at most %d bytes", maxWord)
		}
	}
	return d, nil
}

// wordOK keeps control characters, and with them terminal escapes, out of inventory and audit.
func wordOK(s string) bool {
	return len(s) <= maxWord && utf8.ValidString(s) &&
		!strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

// challenge is the second message in parts.
type challenge struct {
	quote           bool
	nonce           []byte
	blob, encrypted []byte
}

func (c challenge) encode() ([]byte, error) {
	var wants byte
	if c.quote {
		wants |= wantsQuote
	}
	return encode([]byte{typeChallenge, wants}, c.nonce, c.blob, c.encrypted)
}

func decodeChallenge(msg []byte) (challenge, error) {
	head, f, err := decode(msg, typeChallenge, 2, 3)
	if err != nil {
		return challenge{}, err
	}
	if head[1]&^wantsQuote != 0 {
		return challenge{}, fault.New(fault.Unsupported, "the server wants a proof that this build does not know").
			WithReason("device_wants")
	}
	if len(f[0]) != nonceSize {
		return challenge{}, malformed("device_field", "nonce has %d bytes", len(f[0]))
	}
	return challenge{quote: head[1]&wantsQuote != 0, nonce: f[0], blob: f[1], encrypted: f[2]}, nil
}

// proof is the third message in parts.
type proof struct {
	secret []byte
	device.Proof
}

func (p proof) encode() ([]byte, error) {
	var q device.Quote
	if p.Quote != nil {
		q = *p.Quote
	}
	return encode([]byte{typeProof}, p.secret, p.Statement, p.Signature, q.Statement, q.Signature, q.PCRs)
}

func decodeProof(msg []byte) (proof, error) {
	_, f, err := decode(msg, typeProof, 1, 6)
	if err != nil {
		return proof{}, err
	}
	p := proof{secret: f[0], Proof: device.Proof{Statement: f[1], Signature: f[2]}}
	if len(f[3])+len(f[4])+len(f[5]) > 0 {
		p.Quote = &device.Quote{Statement: f[3], Signature: f[4], PCRs: f[5]}
	}
	return p, nil
}

func (w Welcome) encode() ([]byte, error) {
	return encode([]byte{typeWelcome}, []byte(w.DeviceID), []byte(w.AssetTag), []byte(w.CredentialID), []byte(w.Level))
}

func decodeWelcome(msg []byte) (Welcome, error) {
	_, f, err := decode(msg, typeWelcome, 1, 4)
	if err != nil {
		return Welcome{}, err
	}
	w := Welcome{string(f[0]), string(f[1]), string(f[2]), device.Level(f[3])}
	for i, s := range []string{w.DeviceID, w.AssetTag, w.CredentialID, string(w.Level)} {
		if s == "" || !wordOK(s) {
			return Welcome{}, malformed("device_text", "field %d of Welcome is no plain text", i)
		}
	}
	return w, nil
}
