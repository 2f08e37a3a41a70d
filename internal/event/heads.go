package event

import (
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

const headsLabel = "sallyport-audit-heads-v1"

// SignedHeads is the list of all chains' heads at a time, signed by the cluster's audit-heads key. Number counts the
// lists, so that an older one shows as such even where a clock was set back. Heads are sorted by writer.
type SignedHeads struct {
	Number    uint64    `json:"number"`
	Time      time.Time `json:"time"`
	Heads     []Head    `json:"heads"`
	Signature []byte    `json:"signature"`
}

// SignHeads makes a signed list; sign gets the message and returns its Ed25519 signature. The time is kept to the
// microsecond.
func SignHeads(number uint64, at time.Time, heads []Head, sign func(msg []byte) ([]byte, error)) (SignedHeads, error) {
	s := SignedHeads{Number: number, Time: at.UTC().Truncate(time.Microsecond), Heads: slices.Clone(heads)}
	slices.SortFunc(s.Heads, func(a, b Head) int { return strings.Compare(a.Writer, b.Writer) })
	if err := s.check(); err != nil {
		return SignedHeads{}, err
	}
	sig, err := sign(s.message())
	if err != nil {
		return SignedHeads{}, fmt.Errorf("sign heads: %w", err)
	}
	s.Signature = sig
	return s, nil
}

// Verify checks the form and the signature.
func (s SignedHeads) Verify(key ed25519.PublicKey) error {
	if err := s.check(); err != nil {
		return err
	}
	if len(key) != ed25519.PublicKeySize || !ed25519.Verify(key, s.message(), s.Signature) {
		return errors.New("the signature on the list of heads does not verify")
	}
	return nil
}

// Find is the head of a writer's chain; false when the list has none.
func (s SignedHeads) Find(writer string) (Head, bool) {
	i, ok := slices.BinarySearchFunc(s.Heads, writer, func(h Head, w string) int { return strings.Compare(h.Writer, w) })
	if !ok {
		return Head{Writer: writer}, false
	}
	return s.Heads[i], true
}

func (s SignedHeads) check() error {
	for i, h := range s.Heads {
		if h.Writer == "" || h.Seq == 0 {
			return errors.New("list of heads has an empty one")
		}
		if i > 0 && s.Heads[i-1].Writer >= h.Writer {
			return errors.New("list of heads is not sorted")
		}
	}
	return nil
}

// message is what is signed: label, number, microseconds since 1970, count, then writer, seq and hash of each head,
// every field behind its length in 4 bytes.
func (s SignedHeads) message() []byte {
	u64 := func(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }
	b := make([]byte, 0, 64+96*len(s.Heads))
	b = appendField(b, []byte(headsLabel))
	b = appendField(b, u64(s.Number))
	b = appendField(b, u64(uint64(s.Time.UnixMicro())))
	b = appendField(b, u64(uint64(len(s.Heads))))
	for _, h := range s.Heads {
		b = appendField(b, []byte(h.Writer))
		b = appendField(b, u64(h.Seq))
		b = appendField(b, h.Hash[:])
	}
	return b
}

// MarshalBinary is the signed message with the signature as a last field: the compact form that is stored.
func (s SignedHeads) MarshalBinary() ([]byte, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	return appendField(s.message(), s.Signature), nil
}

// UnmarshalBinary takes what MarshalBinary made; it does not verify the signature.
func (s *SignedHeads) UnmarshalBinary(b []byte) error {
	r := fieldReader{rest: b}
	if string(r.next()) != headsLabel {
		return errors.New("not a list of audit heads")
	}
	got := SignedHeads{Number: r.uint64(), Time: time.UnixMicro(int64(r.uint64())).UTC()}
	for n := r.uint64(); n > 0 && !r.bad; n-- {
		h := Head{Writer: string(r.next()), Seq: r.uint64()}
		hash := r.next()
		r.bad = r.bad || len(hash) != len(h.Hash)
		copy(h.Hash[:], hash)
		got.Heads = append(got.Heads, h)
	}
	got.Signature = slices.Clone(r.next())
	if r.bad || len(r.rest) > 0 {
		return errors.New("list of audit heads is damaged")
	}
	if err := got.check(); err != nil {
		return err
	}
	*s = got
	return nil
}

type fieldReader struct {
	rest []byte
	bad  bool
}

func (r *fieldReader) next() []byte {
	if r.bad || len(r.rest) < 4 {
		r.bad = true
		return nil
	}
	n := binary.BigEndian.Uint32(r.rest)
	if uint64(n) > uint64(len(r.rest)-4) {
		r.bad = true
		return nil
	}
	field := r.rest[4 : 4+n]
	r.rest = r.rest[4+n:]
	return field
}

func (r *fieldReader) uint64() uint64 {
	f := r.next()
	if len(f) != 8 {
		r.bad = true
		return 0
	}
	return binary.BigEndian.Uint64(f)
}
